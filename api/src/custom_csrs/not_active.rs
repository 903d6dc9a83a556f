//! The refusal of work with a custom CSR that has no CSR yet, or will have none.

use shared::{codes::ErrorCode, custom_csr::Status, issue::Issue};

/// 1474, with what to do.
#[must_use]
pub fn not_active(status: Status) -> Issue {
    Issue::new(ErrorCode::CustomCsrNotActive).because(match status {
        Status::Pending => "it is still pending, so read it until its status is active and try again then",
        Status::Active | Status::Failed => "its key could not be made, so rekey it and have the new CSR signed",
    })
}
