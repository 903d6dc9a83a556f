//! `csrd openapi`.

use std::process::ExitCode;

use api::openapi;

use super::settings::Output;

/// Prints the document.
pub fn print() -> anyhow::Result<ExitCode> {
    let document = openapi::document(&openapi::service());
    Output::new().text(&openapi::yaml(&document))?;
    Ok(ExitCode::SUCCESS)
}
