//! Runs the binary and writes down all that came of it.

use std::process::{Command, Output, Stdio};

/// The binary with an empty environment, on a machine without a GPU.
pub(crate) fn pitcrew(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pitcrew"));
    command
        .args(args)
        .env_clear()
        .env("PITCREW_ROOT", env!("CARGO_TARGET_TMPDIR"))
        .stdin(Stdio::null());
    command
}

/// Runs to the end.
pub(crate) fn run(mut command: Command) -> Output {
    command.output().unwrap()
}

/// What was written to standard output.
pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Everything that a person or a script sees.
pub(crate) fn transcript(output: &Output) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    let code = output.status.code().unwrap();
    format!(
        "exit code: {code}\n----- stdout -----\n{}----- stderr -----\n{stderr}",
        stdout(output)
    )
}

/// Runs with these words and gives the transcript.
pub(crate) fn transcript_of(args: &[&str]) -> String {
    transcript(&run(pitcrew(args)))
}
