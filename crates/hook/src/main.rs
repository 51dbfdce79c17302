//! The binary: what it does is told by the name it is called by, or by its first argument.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
usage: nvidia-cdi-hook HOOK [OPTIONS] < STATE        a CDI hook; the container's OCI state is read from standard input
       nvidia-container-runtime [OPTIONS] COMMAND    an OCI runtime: gives a container its GPUs, then runs runc
       pitcrew-hook cdi-hook|runtime ...             the same, whatever this file is called

hooks: create-symlinks, update-ldcache, enable-cuda-compat, disable-device-node-modification, chmod
";

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let name = arguments
        .first()
        .map(|first| Path::new(first).file_name().unwrap_or_default().to_owned());
    let name = name.unwrap_or_default();
    let first = arguments
        .get(1)
        .and_then(|first| first.to_str())
        .unwrap_or_default();
    match (name.as_encoded_bytes(), first) {
        (b"nvidia-cdi-hook", _) => hook(&arguments[1..]),
        // Older specifications say `nvidia-ctk hook NAME`.
        (b"nvidia-ctk", "hook") | (_, "cdi-hook") => hook(&arguments[2..]),
        (name, _) if is_runtime(name) => runtime(&arguments),
        (_, "runtime") => {
            arguments.remove(1);
            runtime(&arguments)
        }
        (_, "--version" | "-V") => {
            let _ = writeln!(std::io::stdout(), "pitcrew-hook {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        (_, "--help" | "-h") => {
            let _ = std::io::stdout().write_all(USAGE.as_bytes());
            ExitCode::SUCCESS
        }
        _ => {
            let _ = std::io::stderr().write_all(USAGE.as_bytes());
            ExitCode::from(2)
        }
    }
}

/// `nvidia-container-runtime`, and the same with `.cdi` or `.legacy` behind it.
fn is_runtime(name: &[u8]) -> bool {
    name == b"nvidia-container-runtime" || name.starts_with(b"nvidia-container-runtime.")
}

fn hook(arguments: &[OsString]) -> ExitCode {
    let arguments: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
    let (mut remarks, result) = pitcrew_hook::hooks::run(&arguments, &mut std::io::stdin().lock());
    let failed = result.err();
    if let Some(error) = &failed {
        remarks.push(format!("error: {error}"));
    }
    let mut stderr = std::io::stderr().lock();
    for remark in remarks {
        let _ = writeln!(stderr, "pitcrew-hook: {remark}");
    }
    if failed.is_some() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn runtime(arguments: &[OsString]) -> ExitCode {
    // It returns only where it failed.
    let error = pitcrew_hook::wrapper::run(arguments);
    let _ = writeln!(std::io::stderr(), "nvidia-container-runtime: {error}");
    ExitCode::FAILURE
}
