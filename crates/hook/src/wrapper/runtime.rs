//! The real runtime, on the PATH that the supervisor handed down.

use std::path::{Path, PathBuf};

use rustix::fs::Access;

use super::WrapperError;

/// Behind whatever PATH says: a supervisor may hand down none.
const USUAL: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The first of `names` that is there and isn't this program. A name with a slash is a path of its own.
pub(super) fn find(names: &[String]) -> Result<PathBuf, WrapperError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let ourselves = rustix::fs::stat("/proc/self/exe")
        .ok()
        .map(|found| (found.st_dev, found.st_ino));
    let dirs = || std::env::split_paths(&path).chain(std::env::split_paths(USUAL));
    let is_other = |candidate: &Path| {
        let found = rustix::fs::stat(candidate)
            .ok()
            .map(|found| (found.st_dev, found.st_ino));
        candidate.is_file() && rustix::fs::access(candidate, Access::EXEC_OK).is_ok() && found != ourselves
    };
    for name in names {
        let found = if name.contains('/') {
            Some(PathBuf::from(name)).filter(|path| is_other(path))
        } else {
            // A relative directory would mean another one in each bundle.
            dirs()
                .filter(|dir| dir.is_absolute())
                .map(|dir| dir.join(name))
                .find(|path| is_other(path))
        };
        if let Some(found) = found {
            return Ok(found);
        }
    }
    Err(WrapperError::NoRuntime {
        names: names.join(", "),
        path: path.to_string_lossy().into_owned(),
    })
}
