//! What is generated: documents from the command line itself, so that they cannot differ from it, definitions of
//! custom resources, and Rust from the kubelet's gRPC interfaces.
//!
//! [`generate`] and [`protos()`] make what is committed (`cargo xtask gen`); [`man_pages`] and [`completions`] make what
//! a release brings along (`cargo xtask dist`).

mod definitions;
mod protos;
mod reference;

pub use protos::protos;

use std::io;
use std::path::{Path, PathBuf};

use clap::Command;
use clap_complete::Shell;

/// A file: its path relative to where the files go, and its text.
pub type File = (PathBuf, String);

/// Files that are generated and committed; paths are relative to the repository.
pub fn generate() -> Vec<File> {
    let mut files = vec![
        (PathBuf::from("docs/reference/cli.md"), reference::cli()),
        (
            PathBuf::from("docs/reference/environment.md"),
            reference::environment(),
        ),
        (
            PathBuf::from("docs/reference/exit-codes.md"),
            reference::exit_codes(),
        ),
    ];
    files.extend(definitions::all());
    files
}

/// One man page for each command: `pitcrew.1`, `pitcrew-gpus.1` and so on.
pub fn man_pages() -> Vec<File> {
    let mut pages = Vec::new();
    add_man_page(&built(), &mut pages);
    pages
}

fn add_man_page(command: &Command, pages: &mut Vec<File>) {
    let name = command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
        .to_owned();
    let mut page = Vec::new();
    // Writing to memory can't fail, and a page that came out short would still be a page.
    let _ = clap_mangen::Man::new(command.clone()).render(&mut page);
    pages.push((
        PathBuf::from(format!("{name}.1")),
        String::from_utf8_lossy(&page).into_owned(),
    ));
    command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set())
        .for_each(|sub| add_man_page(sub, pages));
}

/// Completion scripts for all shells, named as each shell wants to find them.
pub fn completions() -> Vec<File> {
    let shells = [
        Shell::Bash,
        Shell::Elvish,
        Shell::Fish,
        Shell::PowerShell,
        Shell::Zsh,
    ];
    let script = |shell: Shell| {
        let mut command = pitcrew_cli::command();
        let name = command.get_name().to_owned();
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command, &name, &mut script);
        let file = clap_complete::Generator::file_name(&shell, &name);
        (PathBuf::from(file), String::from_utf8_lossy(&script).into_owned())
    };
    shells.map(script).into()
}

/// Writes files under `dir`, which is made if it isn't there.
pub fn write(dir: &Path, files: &[File]) -> io::Result<()> {
    for (path, text) in files {
        let full = dir.join(path);
        if let Some(parent) = full.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(full, text)?;
    }
    Ok(())
}

/// The command line with everything that clap adds by itself: names, usage, global flags in every command.
fn built() -> Command {
    let mut command = pitcrew_cli::command().disable_help_subcommand(true);
    command.build();
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_man_page_and_a_section_in_the_reference() {
        let names: Vec<String> = man_pages()
            .iter()
            .map(|(path, _)| path.display().to_string())
            .collect();
        for name in [
            "pitcrew.1",
            "pitcrew-gpus.1",
            "pitcrew-gpus-catalog.1",
            "pitcrew-completions.1",
        ] {
            assert!(names.iter().any(|found| found == name), "{name} in {names:?}");
        }
        let reference = reference::cli();
        for name in names {
            let title = format!("# `{}`\n", name.trim_end_matches(".1").replace('-', " "));
            assert!(reference.contains(&title), "{title}");
        }
    }

    #[test]
    fn completions_know_the_commands() {
        for (path, script) in completions() {
            assert!(
                script.contains("catalog") && script.contains("scenario"),
                "{}",
                path.display()
            );
        }
    }

    #[test]
    fn what_is_generated_is_the_same_every_time() {
        assert_eq!(generate(), generate());
    }

    #[test]
    fn no_line_ends_in_blanks() {
        for (path, text) in generate() {
            for line in text.lines() {
                assert_eq!(line.trim_end(), line, "{}", path.display());
            }
            assert!(
                text.ends_with('\n') && !text.ends_with("\n\n"),
                "{}",
                path.display()
            );
        }
    }
}
