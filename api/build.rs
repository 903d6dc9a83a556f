//! Tells the program which compiler built it.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[expect(clippy::disallowed_methods, reason = "cargo says by the environment which compiler it uses")]
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().ok().and_then(|output| String::from_utf8(output.stdout).ok());
    // `rustc 1.95.0 (hash date)`
    let version = version.as_deref().and_then(|text| text.split_whitespace().nth(1)).unwrap_or("unknown");
    println!("cargo::rustc-env=CSRD_RUSTC={version}");
}
