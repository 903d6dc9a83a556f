//! `csrd openapi`.

use std::{io::Write, process::ExitCode};

use api::openapi;

/// Prints the document.
pub fn print() -> anyhow::Result<ExitCode> {
    let document = openapi::document(&openapi::service());
    std::io::stdout().write_all(openapi::yaml(&document).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
