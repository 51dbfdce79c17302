//! Writing a specification so that nobody ever reads half of one.

use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::Spec;
use crate::spec::{Invalid, NameError};
use crate::text::{EncodeError, Encoding, encode};

/// Why a specification was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A container runtime would refuse it.
    #[error("the specification is not valid")]
    Invalid(#[from] Invalid),
    /// Its kind can't be the name of a file.
    #[error(transparent)]
    Kind(#[from] NameError),
    /// It can't be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The file can't be written.
    #[error("`{}` can't be written", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Writes the specification into a directory, under the name that its kind gives it, and gives the path.
///
/// The directory is made if it isn't there. The file is written under a name that container runtimes don't look at
/// and then put in the place of the old one, readable by all: whoever looks sees the old or the new one, also after a
/// power cut.
///
/// # Errors
/// Where the specification is not valid, or the directory can't be written to; an older file is then as it was.
pub fn into_directory(spec: &Spec, dir: &Path, encoding: Encoding) -> Result<PathBuf, WriteError> {
    spec.check()?;
    let path = dir.join(file_name(spec, encoding)?);
    let text = encode(spec, encoding)?;
    put(&path, dir, &text).map_err(|source| WriteError::File {
        path: path.clone(),
        source,
    })?;
    Ok(path)
}

/// Name of a specification's file: `nvidia.com-gpu.json`.
///
/// # Errors
/// Where its kind is none.
pub fn file_name(spec: &Spec, encoding: Encoding) -> Result<String, NameError> {
    let kind: crate::Kind = spec.kind.parse()?;
    Ok(format!("{}.{}", kind.file_stem(), encoding.ending()))
}

fn put(path: &Path, dir: &Path, text: &str) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let mut file = tempfile::Builder::new()
        .prefix(".pitcrew-")
        .suffix(".tmp")
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(dir)?;
    file.write_all(text.as_bytes())?;
    // The mode that a file is made with is subject to the umask.
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ContainerEdits, Device};

    fn spec() -> Spec {
        Spec {
            version: "0.3.0".to_owned(),
            kind: "nvidia.com/gpu".to_owned(),
            devices: vec![Device {
                name: "all".to_owned(),
                container_edits: ContainerEdits {
                    env: vec!["A=1".to_owned()],
                    ..ContainerEdits::default()
                },
                ..Device::default()
            }],
            ..Spec::default()
        }
    }

    #[test]
    fn a_specification_takes_the_place_of_the_old_one_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run/cdi");
        for _ in 0..2 {
            let path = into_directory(&spec(), &run, Encoding::Json).unwrap();
            assert_eq!(path, run.join("nvidia.com-gpu.json"));
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
            assert_eq!(
                crate::text::parse(&fs::read_to_string(&path).unwrap()).unwrap(),
                spec()
            );
        }
        assert_eq!(fs::read_dir(&run).unwrap().count(), 1);
    }

    #[test]
    fn what_a_runtime_would_refuse_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let invalid = Spec {
            version: "0.1.0".to_owned(),
            ..spec()
        };
        assert!(into_directory(&invalid, dir.path(), Encoding::Yaml).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        fs::create_dir(dir.path().join("nvidia.com-gpu.json")).unwrap();
        let error = into_directory(&spec(), dir.path(), Encoding::Json).unwrap_err();
        assert!(matches!(error, WriteError::File { .. }), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
