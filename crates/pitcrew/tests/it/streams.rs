//! Streams, colour, formats and the odd commands.

use std::process::Stdio;

use crate::program::{pitcrew, run, stdout, transcript_of};

#[test]
fn a_reader_that_goes_away_ends_it_quietly_with_the_same_status() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = pitcrew(&["gpus", "catalog"]);
    let output = command.stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_full_disk_is_an_error() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = pitcrew(&["gpus", "catalog"])
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.starts_with("error: the output can't be written\n  caused by: No space left"),
        "{stderr}"
    );
}

#[test]
fn colour_is_where_it_is_asked_for_and_nowhere_else() {
    let escapes = |args: &[&str], variable: Option<(&str, &str)>| {
        let mut command = pitcrew(args);
        command.envs(variable);
        run(command).stderr.contains(&0x1b)
    };
    let wrong = ["gpus", "catalog", "no-such-card"];
    let wrong_with = |when: &'static str| [&wrong[..], &["--color", when]].concat();
    assert!(!escapes(&wrong, None));
    assert!(escapes(&wrong_with("always"), None));
    assert!(escapes(&wrong_with("always"), Some(("NO_COLOR", "1"))));
    assert!(escapes(&wrong, Some(("PITCREW_COLOR", "always"))));
    assert!(!escapes(&wrong, Some(("CLICOLOR_FORCE", ""))));
    assert!(!escapes(&wrong_with("never"), Some(("CLICOLOR_FORCE", "1"))));
}

#[test]
fn versions() {
    insta::assert_snapshot!(transcript_of(&["--version"]), @r"
    exit code: 0
    ----- stdout -----
    pitcrew 0.1.0
    ----- stderr -----
    ");
    assert_eq!(transcript_of(&["version"]), transcript_of(&["-V"]));
    assert_eq!(
        stdout(&run(pitcrew(&["version", "-o", "json"]))),
        "{\n  \"version\": \"0.1.0\"\n}\n"
    );
    assert_eq!(
        stdout(&run(pitcrew(&["version", "-o", "yaml"]))),
        "version: \"0.1.0\"\n"
    );
}

#[test]
fn help() {
    insta::assert_snapshot!("help", transcript_of(&["-h"]));
    insta::assert_snapshot!("help_gpus", transcript_of(&["gpus", "--help"]));
    insta::assert_snapshot!("help_catalog", transcript_of(&["gpus", "catalog", "--help"]));
}

#[test]
fn completions_are_made_for_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = run(pitcrew(&["completions", shell]));
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout(&output).contains("catalog"), "{shell}");
    }
}
