//! `csrd openapi`.

use std::process::ExitCode;

use api::document;

use super::settings::Output;

/// Prints the document.
pub fn print() -> anyhow::Result<ExitCode> {
    let document = document::document(&document::service());
    Output::new().text(&document::yaml(&document))?;
    Ok(ExitCode::SUCCESS)
}
