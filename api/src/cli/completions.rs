//! `csrd completions`.

use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;

use super::settings::Output;

/// For which shell.
#[derive(Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Prints what the shell needs to complete commands and options.
pub fn print(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "csrd", &mut script);
    Output::new().text(&String::from_utf8(script)?)?;
    Ok(ExitCode::SUCCESS)
}
