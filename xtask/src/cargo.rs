//! Calling cargo.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::{Result, answer, root, say};

fn command(arguments: &[&str], env: &[(&str, &str)]) -> Command {
    // Cargo tells its subcommands which cargo it is, so that a toolchain override holds for these calls too.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(arguments)
        .envs(env.iter().copied())
        .current_dir(root());
    command
}

/// Runs cargo and lets it speak for itself.
pub(crate) fn run(arguments: &[&str], env: &[(&str, &str)]) -> Result {
    say(&format!("$ cargo {}", arguments.join(" ")));
    let status = command(arguments, env)
        .status()
        .map_err(|e| format!("cargo cannot be started: {e}"))?;
    if status.success() {
        return Ok(());
    }
    Err(format!("`cargo {}` failed", arguments.join(" ")))
}

/// Runs cargo, passes its standard output on when `quiet` does not forbid it, and returns the lines; whether it
/// succeeded is the second answer.
pub(crate) fn lines(
    arguments: &[&str],
    env: &[(&str, &str)],
    quiet: bool,
) -> std::result::Result<(Vec<String>, bool), String> {
    say(&format!("$ cargo {}", arguments.join(" ")));
    let mut child = command(arguments, env)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cargo cannot be started: {e}"))?;
    let output = child
        .stdout
        .take()
        .ok_or("cargo gives no standard output")?;
    let mut lines = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line.map_err(|e| format!("cargo's output cannot be read: {e}"))?;
        if !quiet {
            answer(&line);
        }
        lines.push(line);
    }
    let status = child
        .wait()
        .map_err(|e| format!("cargo cannot be waited for: {e}"))?;
    Ok((lines, status.success()))
}
