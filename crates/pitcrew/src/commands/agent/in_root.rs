//! `pitcrew agent in-root`: a program of the node, with the node's root as its own.
//!
//! The image has no shell and no `chroot`, and changing the root between fork and exec would be unsafe code; so the
//! agent starts itself, which changes its root and becomes the program.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use pitcrew_cli::AgentInRootArgs;

use crate::error::Error;

/// Becomes the program; returns only where it can't.
pub(super) fn run(args: &AgentInRootArgs) -> Error {
    let Some((program, arguments)) = args.command.split_first() else {
        return Error::InRoot {
            program: String::new(),
            source: std::io::ErrorKind::InvalidInput.into(),
        };
    };
    let refused = |source| Error::InRoot {
        program: program.to_string_lossy().into_owned(),
        source,
    };
    if let Err(error) = rustix::process::chroot(&args.root).and_then(|()| rustix::process::chdir("/")) {
        return refused(error.into());
    }
    refused(Command::new(program).args(arguments).exec())
}
