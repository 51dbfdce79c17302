//! The OCI runtime wrapper: on `create` it puts into the bundle's `config.json` what the container asks of GPUs, then
//! becomes the real runtime. Every other command, and a container that asks for nothing, goes there at once.

mod command;
mod edits;
mod log;
mod request;
mod runtime;
mod settings;
mod spec;

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

pub use command::Invocation;
pub use edits::EditError;
pub use request::{Name, NameError, requested};
pub use settings::{FILE as SETTINGS_FILE, Settings};
pub use spec::{SpecError, Specs};

use crate::root::temporary_name;
use crate::state::{StateError, read_file};

/// Why a container got neither its GPUs nor the real runtime.
#[derive(Debug, thiserror::Error)]
pub enum WrapperError {
    /// No runtime to become.
    #[error("none of {names} is on PATH ({path}), beside this wrapper itself")]
    NoRuntime {
        /// The names looked for.
        names: String,
        /// Where.
        path: String,
    },
    /// It is there and does not start.
    #[error("{} could not be started: {source}", path.display())]
    Exec {
        /// The runtime.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The bundle's configuration could not be read.
    #[error("the container's configuration: {0}")]
    Config(#[from] StateError),
    /// It is not JSON.
    #[error("{} is not an OCI configuration: {reason}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The wrapper's own settings.
    #[error("{} could not be read: {reason}", path.display())]
    Settings {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A request that can't be understood.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A device that no specification has.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A specification that can't be applied.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The changed configuration could not be written.
    #[error("{} could not be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// Where the kernel module says its version; without it no driver is loaded.
const DRIVER: &str = "/proc/driver/nvidia/version";

/// Does all of it, with the words of the command line, the program's name first. It returns only where it failed; the
/// error stands then in the log that the command line names, as runc would have written it, so that containerd shows it.
pub fn run(words: &[OsString]) -> WrapperError {
    let invocation = Invocation::parse(words.get(1..).unwrap_or_default());
    let error = match prepare(&invocation) {
        Ok(runtime) => {
            let mut command = Command::new(&runtime);
            let source = command.args(words.get(1..).unwrap_or_default()).exec();
            WrapperError::Exec {
                path: runtime,
                source,
            }
        }
        Err(error) => error,
    };
    log::write(
        &invocation,
        log::Level::Error,
        &format!("nvidia-container-runtime: {error}"),
    );
    error
}

/// Changes the configuration where that is asked for, and finds the runtime.
fn prepare(invocation: &Invocation) -> Result<PathBuf, WrapperError> {
    let settings = Settings::beside_program();
    let Some(bundle) = &invocation.create else {
        // A container must be ended even where the settings are broken.
        return runtime::find(&settings.unwrap_or_default().runtimes);
    };
    let settings = settings?;
    if settings.pass_through {
        return runtime::find(&settings.runtimes);
    }
    change(bundle, &settings, invocation)?;
    runtime::find(&settings.runtimes)
}

fn change(bundle: &Path, settings: &Settings, invocation: &Invocation) -> Result<(), WrapperError> {
    let path = bundle.join("config.json");
    let mut config: Value =
        serde_json::from_slice(&read_file(&path)?).map_err(|error| WrapperError::Parse {
            path: path.clone(),
            reason: error.to_string(),
        })?;
    let request = requested(&config, settings)?;
    for remark in &request.remarks {
        log::write(invocation, log::Level::Warning, remark);
    }
    if request.names.is_empty() {
        return Ok(());
    }
    let specs = Specs::load(&settings.spec_dirs);
    match specs.resolve(&request.names) {
        Ok(found) => edits::apply(&mut config, &found)?,
        // Pods that only would use a GPU start on nodes without a driver; what the scheduler gave is not left out.
        Err(error) if request.by_env && !Path::new(DRIVER).exists() => {
            let remark =
                format!("no NVIDIA driver is loaded, so the container starts without a GPU: {error}");
            log::write(invocation, log::Level::Warning, &remark);
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    }
    replace(&path, &config).map_err(|source| WrapperError::Write { path, source })
}

/// Writes the configuration beside the old one, with its mode, and puts it in its place.
fn replace(path: &Path, config: &Value) -> std::io::Result<()> {
    let mode = std::fs::metadata(path)?.mode() & 0o777;
    let temporary = path.with_file_name(temporary_name());
    let written = (|| {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(&serde_json::to_vec(config)?)?;
        std::fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}
