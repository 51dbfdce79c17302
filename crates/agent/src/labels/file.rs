//! Labels as a file for the local source of Node Feature Discovery.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;

use crate::dir::Dir;

/// One `key=value` a line, by key.
pub(super) fn text(labels: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    for (key, value) in labels {
        text.extend([key, "=", value, "\n"]);
    }
    text
}

/// Puts the labels at a path below the host's root at once, so that nobody reads a part of them. Makes the directory; does
/// nothing where the file already says so.
pub(super) fn write(root: &Path, path: &Path, labels: &BTreeMap<String, String>) -> io::Result<()> {
    let text = text(labels);
    if std::fs::read(path).is_ok_and(|there| there == text.as_bytes()) {
        return Ok(());
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    let held = Dir::make(root, directory.strip_prefix(root).unwrap_or(directory))?;
    // Hidden: Node Feature Discovery passes over names that begin with a dot.
    let mut file = tempfile::Builder::new()
        .prefix(".pitcrew-labels-")
        .tempfile_in(held.path())?;
    file.write_all(text.as_bytes())?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // It is read by another user than root.
        file.as_file()
            .set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    file.persist(held.path().join(path.file_name().unwrap_or_default()))?;
    Ok(())
}

/// Takes the file away; one that isn't there is taken away already.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
