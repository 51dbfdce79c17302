//! Mistakes: one clear error, and a way on.

use crate::program::transcript_of;

#[test]
fn wrong_usage_ends_with_64() {
    insta::assert_snapshot!(
        "usage_no_command",
        transcript_of(&[]).lines().next().unwrap_or_default()
    );
    insta::assert_snapshot!("usage_unknown_flag", transcript_of(&["gpus", "--scenari", "t4"]));
    insta::assert_snapshot!("usage_unknown_command", transcript_of(&["gpu"]));
    insta::assert_snapshot!("usage_wrong_format", transcript_of(&["gpus", "-o", "toml"]));
    insta::assert_snapshot!(
        "usage_filter_with_name",
        transcript_of(&["gpus", "catalog", "T4", "--arch", "turing"])
    );
}

#[test]
fn a_root_that_is_no_directory_is_refused_by_every_command_that_reads_it() {
    for command in ["gpus", "check", "top"] {
        let text = transcript_of(&[command, "--root", "/nowhere/at/all"]);
        assert!(text.starts_with("exit code: 64\n"), "{text}");
        let text = transcript_of(&[command, "--root", env!("CARGO_BIN_EXE_pitcrew")]);
        assert!(text.contains("caused by: not a directory"), "{text}");
    }
    insta::assert_snapshot!(
        "root_missing",
        transcript_of(&["check", "--root", "/nowhere/at/all"])
    );
}

#[test]
fn an_unknown_card_is_answered_with_near_names() {
    insta::assert_snapshot!("unknown_card", transcript_of(&["gpus", "catalog", "RTX 3061"]));
    insta::assert_snapshot!(
        "unknown_card_far",
        transcript_of(&["gpus", "catalog", "zzzzzzzz"])
    );
}

#[test]
fn an_ambiguous_card_is_answered_with_all_that_it_can_mean() {
    insta::assert_snapshot!("ambiguous_card", transcript_of(&["gpus", "catalog", "H100"]));
}

#[cfg(feature = "sim")]
mod scenario {
    use std::fs;
    use std::path::Path;

    use crate::program::transcript_of;

    /// The transcript for a scenario file with this text.
    fn from_file(text: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("rack.yaml");
        fs::write(&file, text).unwrap();
        of_file(&file, dir.path())
    }

    fn of_file(file: &Path, dir: &Path) -> String {
        let shown = transcript_of(&["gpus", "--scenario", file.to_str().unwrap(), "--width", "120"]);
        shown.replace(&dir.display().to_string(), "DIR")
    }

    #[test]
    fn an_unknown_name_is_answered_with_near_names() {
        insta::assert_snapshot!("unknown_scenario", transcript_of(&["gpus", "--scenario", "h100"]));
        insta::assert_snapshot!(
            "unknown_scenario_far",
            transcript_of(&["gpus", "--scenario", "zzzzzzzz"])
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        insta::assert_snapshot!("missing_file", of_file(&dir.path().join("none.yaml"), dir.path()));
    }

    #[test]
    fn a_mistake_in_a_file_is_shown_with_its_line_and_column() {
        insta::assert_snapshot!("broken_yaml", from_file("description: x\ndriver: [\n"));
        let unknown_card =
            "description: x\ndriver: { version: 580.159.04, cuda: \"13.0\" }\ngpus:\n  - card: RTX 3061\n";
        insta::assert_snapshot!("unknown_card_in_file", from_file(unknown_card));
        let unknown_key = "description: x\ndrivers: { version: 580.159.04, cuda: \"13.0\" }\n";
        insta::assert_snapshot!("unknown_key_in_file", from_file(unknown_key));
    }

    #[test]
    fn a_driver_that_does_not_answer_is_an_error() {
        let text = "description: x\ndriver: { version: 580.159.04, cuda: \"13.0\", fault: Driver/library version mismatch }\n\
                    gpus:\n  - card: RTX 3060 12GB\n";
        insta::assert_snapshot!("driver_fault", from_file(text));
    }
}
