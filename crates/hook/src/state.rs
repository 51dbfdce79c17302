//! The container's state, which an OCI runtime gives to a hook on its standard input.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Largest state or `config.json`, in bytes; real ones have some ten thousand.
pub const LARGEST: u64 = 16 << 20;

/// What a hook needs of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct State {
    /// The bundle's directory.
    #[serde(default)]
    pub bundle: PathBuf,
    /// The container's root directory: an extension of crun.
    #[serde(default)]
    pub root: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Config {
    root: Option<ConfigRoot>,
}

#[derive(Deserialize)]
struct ConfigRoot {
    path: PathBuf,
}

/// Why the container's root directory could not be told.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Nothing came, or it broke off.
    #[error("the container's state could not be read: {0}")]
    Read(std::io::Error),
    /// Larger than [`LARGEST`].
    #[error("{what} has more than {LARGEST} bytes")]
    TooLarge {
        /// What it is.
        what: String,
    },
    /// Not the JSON that it must be.
    #[error("the container's state is not an OCI state: {0}")]
    Parse(serde_json::Error),
    /// The bundle's configuration.
    #[error("{path} could not be read: {reason}")]
    Config {
        /// Its path.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// It says no absolute path.
    #[error("neither the container's state nor {} says where its root directory is", .0.display())]
    NoRoot(PathBuf),
}

impl State {
    /// Reads a state from JSON.
    pub fn parse(text: &[u8]) -> Result<Self, StateError> {
        serde_json::from_slice(text).map_err(StateError::Parse)
    }

    /// Reads it to the end of a stream, a bounded part at most.
    pub fn read(from: &mut dyn Read) -> Result<Self, StateError> {
        Self::parse(
            &bounded(from, "the container's state")
                .map_err(|error| error.unwrap_or_else(StateError::Read))?,
        )
    }

    /// The container's root directory, from the state or from the bundle's `config.json`.
    pub fn root(&self) -> Result<PathBuf, StateError> {
        if let Some(root) = self.root.as_ref().filter(|root| root.is_absolute()) {
            return Ok(root.clone());
        }
        let path = self.bundle.join("config.json");
        if !path.is_absolute() {
            return Err(StateError::NoRoot(path));
        }
        self.root_in(&read_file(&path)?)
    }

    /// The same, from the text of `config.json`.
    pub fn root_in(&self, config: &[u8]) -> Result<PathBuf, StateError> {
        let path = self.bundle.join("config.json");
        let parsed: Config = serde_json::from_slice(config).map_err(|error| StateError::Config {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        let root = parsed.root.map(|root| self.bundle.join(root.path));
        root.filter(|root| root.is_absolute())
            .ok_or(StateError::NoRoot(path))
    }
}

/// Reads a file of the host, a bounded part at most.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, StateError> {
    let failed = |error: std::io::Error| StateError::Config {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let mut file = std::fs::File::open(path).map_err(failed)?;
    bounded(&mut file, &path.display().to_string()).map_err(|error| error.unwrap_or_else(failed))
}

/// An error that is whole, or one of reading that the caller names.
enum Bounded {
    Whole(StateError),
    Io(std::io::Error),
}

impl Bounded {
    fn unwrap_or_else(self, named: impl FnOnce(std::io::Error) -> StateError) -> StateError {
        match self {
            Self::Whole(error) => error,
            Self::Io(error) => named(error),
        }
    }
}

fn bounded(from: &mut dyn Read, what: &str) -> Result<Vec<u8>, Bounded> {
    let mut text = Vec::new();
    from.take(LARGEST + 1)
        .read_to_end(&mut text)
        .map_err(Bounded::Io)?;
    if text.len() as u64 > LARGEST {
        return Err(Bounded::Whole(StateError::TooLarge {
            what: what.to_owned(),
        }));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crun_says_the_root_itself_and_runc_leaves_it_to_the_bundle() {
        let crun = State::parse(br#"{"bundle": "/b", "root": "/r", "pid": 1}"#).unwrap();
        assert_eq!(crun.root().unwrap(), Path::new("/r"));
        let runc = State::parse(br#"{"ociVersion": "1.0.2", "id": "x", "bundle": "/b"}"#).unwrap();
        assert_eq!(
            runc.root_in(br#"{"root": {"path": "rootfs"}}"#).unwrap(),
            Path::new("/b/rootfs")
        );
        assert_eq!(
            runc.root_in(br#"{"root": {"path": "/elsewhere"}}"#).unwrap(),
            Path::new("/elsewhere")
        );
    }

    #[test]
    fn a_state_that_says_no_root_is_refused() {
        assert!(matches!(
            State::parse(b"{}").unwrap().root(),
            Err(StateError::NoRoot(_))
        ));
        let relative = State::parse(br#"{"root": "r"}"#).unwrap();
        assert!(matches!(
            relative.root_in(br#"{"root": {"path": "r"}}"#),
            Err(StateError::NoRoot(_))
        ));
        assert!(matches!(State::parse(b""), Err(StateError::Parse(_))));
        let mut endless = std::io::repeat(b' ');
        assert!(matches!(
            State::read(&mut endless),
            Err(StateError::TooLarge { .. })
        ));
    }
}
