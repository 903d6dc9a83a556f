//! `csrd openapi`.

use std::process::ExitCode;

use api::document;
use shared::custom_csr::KeyTypes;

use super::settings::Output;

/// Prints the document, with the key types that are accepted by default.
pub fn print() -> anyhow::Result<ExitCode> {
    let document = document::document(&document::service(), &KeyTypes::default());
    Output::new().text(&document::yaml(&document))?;
    Ok(ExitCode::SUCCESS)
}
