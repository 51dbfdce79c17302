//! A hook by its name.

use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;

use crate::args::{ArgsError, Call};
use crate::root::{ContainerRoot, RootError};
use crate::state::{State, StateError, read_file};
use crate::{chmod, cuda_compat, device_params, ld_cache, symlinks};

/// Why a hook failed, and with it the container's start.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The command line.
    #[error(transparent)]
    Args(#[from] ArgsError),
    /// An option that must be there.
    #[error("{hook} needs --{option}")]
    Missing {
        /// The hook.
        hook: String,
        /// The option.
        option: &'static str,
    },
    /// The state on standard input.
    #[error(transparent)]
    State(#[from] StateError),
    /// The container's files.
    #[error(transparent)]
    Root(#[from] RootError),
    /// `create-symlinks`.
    #[error(transparent)]
    Link(#[from] symlinks::LinkError),
    /// `update-ldcache`.
    #[error(transparent)]
    Cache(#[from] ld_cache::CacheError),
    /// `disable-device-node-modification`.
    #[error(transparent)]
    Params(#[from] device_params::ParamsError),
    /// `chmod`.
    #[error(transparent)]
    Chmod(#[from] chmod::ChmodError),
}

/// Runs the hook that `words` name; remarks for standard error come back too. One that is not known is passed over with
/// a remark: a specification may name a hook that is newer than this program.
pub fn run(words: &[&OsStr], state: &mut dyn Read) -> (Vec<String>, Result<(), HookError>) {
    let mut remarks = Vec::new();
    let result = Call::parse(words).map_err(HookError::from).and_then(|call| {
        let known: &[&str] = match call.hook.as_str() {
            "create-symlinks" => &["link"],
            "update-ldcache" => &["folder", "ldconfig-path"],
            "enable-cuda-compat" => &[
                "host-driver-version",
                "host-cuda-version",
                "cuda-compat-container-root",
            ],
            "disable-device-node-modification" => &[],
            "chmod" => &["mode", "path"],
            _ => {
                remarks.push(format!(
                    "warning: the hook `{}` is not known, so it did nothing",
                    call.hook
                ));
                return Ok(());
            }
        };
        for option in call.unknown(known) {
            remarks.push(format!("warning: {} knows no option --{option}", call.hook));
        }
        one(&call, state, &mut remarks)
    });
    (remarks, result)
}

fn one(call: &Call, state: &mut dyn Read, remarks: &mut Vec<String>) -> Result<(), HookError> {
    let state = match call.value("container-spec").filter(|path| *path != "-") {
        Some(path) => State::parse(&read_file(Path::new(path))?)?,
        None => State::read(state)?,
    };
    let root = || -> Result<ContainerRoot, HookError> { Ok(ContainerRoot::open(&state.root()?)?) };
    match call.hook.as_str() {
        "create-symlinks" => symlinks::create(&root()?, call.values("link"))?,
        "update-ldcache" => {
            let said = ld_cache::update(&root()?, call.value("ldconfig-path"), call.values("folder"))?;
            remarks.extend(said.into_iter().map(|line| format!("ldconfig: {line}")));
        }
        "enable-cuda-compat" => {
            let host = cuda_compat::Host {
                driver: call.value("host-driver-version"),
                cuda: call.value("host-cuda-version"),
            };
            let dir = call
                .value("cuda-compat-container-root")
                .unwrap_or(cuda_compat::DEFAULT_DIR);
            let remark = cuda_compat::enable(&root()?, Path::new(dir), host)?;
            remarks.extend(remark.map(|remark| format!("warning: {remark}")));
        }
        "disable-device-node-modification" => {
            // Without a driver on the host there is nothing to hide.
            let params = std::fs::read_to_string(device_params::PARAMS).unwrap_or_default();
            if let Some(text) = device_params::changed(&params) {
                device_params::cover(&root()?, Path::new(device_params::PARAMS), &text)?;
            }
        }
        _ => {
            let missing = HookError::Missing {
                hook: call.hook.clone(),
                option: "mode",
            };
            chmod::set(&root()?, call.value("mode").ok_or(missing)?, call.values("path"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_that_is_not_known_warns_and_succeeds() {
        let (remarks, result) = run(
            &[OsStr::new("from-the-future"), OsStr::new("--x=y")],
            &mut std::io::empty(),
        );
        assert!(result.is_ok());
        assert_eq!(
            remarks,
            ["warning: the hook `from-the-future` is not known, so it did nothing"]
        );
    }

    #[test]
    fn a_hook_without_a_state_fails() {
        let (_, result) = run(&[OsStr::new("create-symlinks")], &mut std::io::empty());
        assert!(matches!(result, Err(HookError::State(StateError::Parse(_)))));
    }
}
