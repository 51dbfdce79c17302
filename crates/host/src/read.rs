//! From the errors of a file system to readings.

use std::io;
use std::path::{Path, PathBuf};

use pitcrew_core::Reading;
use pitcrew_core::ports::{FileKind, HostFs};

/// True where the error says that there is no such file, rather than that it can't be read.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Why a path can't be read, in words that hold wherever the root is.
pub(crate) fn reason(path: &Path, error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        _ => error.to_string(),
    };
    format!("`{}` can't be read: {why}", path.display())
}

/// What an attempt to read came to; a file that isn't there is one that the host doesn't have.
pub(crate) fn reading<T>(path: &Path, result: io::Result<T>) -> Reading<T> {
    match result {
        Ok(value) => Reading::Value(value),
        Err(error) if is_absent(&error) => Reading::NotSupported,
        Err(error) => Reading::Failed(reason(path, &error)),
    }
}

/// The text of a file. Bytes that are not UTF-8 become `U+FFFD`: what matters to us is ASCII.
pub(crate) fn text(fs: &dyn HostFs, path: impl AsRef<Path>) -> Reading<String> {
    let path = path.as_ref();
    reading(path, fs.read(path)).map(|bytes| lossy(&bytes))
}

/// The text without the white space around it.
pub(crate) fn line(fs: &dyn HostFs, path: impl AsRef<Path>) -> Reading<String> {
    text(fs, path).map(|text| text.trim().to_owned())
}

pub(crate) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Names in a directory.
pub(crate) fn names(fs: &dyn HostFs, path: impl AsRef<Path>) -> Reading<Vec<String>> {
    let path = path.as_ref();
    reading(path, fs.list(path))
}

/// Names in a directory, none where it can't be listed: for places where something may be among others.
pub(crate) fn names_or_none(fs: &dyn HostFs, path: impl AsRef<Path>) -> Vec<String> {
    fs.list(path.as_ref()).unwrap_or_default()
}

/// True where something is at the path. A link is something, wherever it points.
pub(crate) fn exists(fs: &dyn HostFs, path: impl AsRef<Path>) -> bool {
    fs.kind(path.as_ref()).is_ok()
}

/// False only where nothing is at the path for sure: in a directory that may not be looked into, something may be.
pub(crate) fn may_exist(fs: &dyn HostFs, path: impl AsRef<Path>) -> bool {
    !fs.kind(path.as_ref()).is_err_and(|error| is_absent(&error))
}

/// What is at the path, links followed; `None` where nothing is, or more than 40 links lie on the way.
pub(crate) fn followed(fs: &dyn HostFs, path: impl AsRef<Path>) -> Option<(PathBuf, FileKind)> {
    let mut path = path.as_ref().to_owned();
    for _ in 0..40 {
        match fs.kind(&path).ok()? {
            FileKind::Link(target) => path = beside(&path, &target),
            kind => return Some((path, kind)),
        }
    }
    None
}

/// Where a link at `path` points, `.` and `..` of the target taken away by name.
pub(crate) fn beside(path: &Path, target: &Path) -> PathBuf {
    let mut full = path.parent().unwrap_or(Path::new("/")).to_owned();
    for component in target.components() {
        match component {
            std::path::Component::RootDir => full = PathBuf::from("/"),
            std::path::Component::ParentDir => {
                full.pop();
            }
            std::path::Component::Normal(name) => full.push(name),
            std::path::Component::CurDir | std::path::Component::Prefix(_) => {}
        }
    }
    full
}

/// True where a regular file is at the path, links followed.
pub(crate) fn is_file(fs: &dyn HostFs, path: impl AsRef<Path>) -> bool {
    matches!(followed(fs, path), Some((_, FileKind::File(_))))
}

/// Looks for bytes in a file too large to be read whole, a part at a time, and gives what `take` makes of the first
/// find that it takes; it is shown at most 256 bytes behind the find. Stops after `most` bytes.
pub(crate) fn find<T>(
    fs: &dyn HostFs,
    path: &Path,
    needle: &[u8],
    most: u64,
    take: impl Fn(&[u8]) -> Option<T>,
) -> io::Result<Option<T>> {
    const PART: usize = 1 << 20;
    const SHOWN: usize = 256;
    let mut offset = 0;
    while offset < most {
        // Each part overlaps the next, so that a find and what is shown of it lie in one of them.
        let part = fs.read_part(path, offset, PART + needle.len() + SHOWN)?;
        let mut rest = part.as_slice();
        while let Some(at) = position(rest, needle) {
            let behind = &rest[at + needle.len()..];
            if let Some(found) = take(&behind[..behind.len().min(SHOWN)]) {
                return Ok(Some(found));
            }
            rest = &rest[at + 1..];
        }
        if part.len() < PART {
            break;
        }
        offset += PART as u64;
    }
    Ok(None)
}

/// Where the needle begins. Compares only where its first byte is: what is searched is long, what is looked for rare.
fn position(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let (&first, _) = needle.split_first()?;
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|&byte| byte == first) {
        if bytes[from + at..].starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

/// The last line of a log that `wanted` takes, searched backwards in parts, and `most` bytes at most.
pub(crate) fn last_line<T>(
    fs: &dyn HostFs,
    path: &Path,
    most: u64,
    wanted: impl Fn(&str) -> Option<T>,
) -> io::Result<Option<T>> {
    const PART: u64 = 1 << 20;
    const LONGEST_LINE: u64 = 4096;
    let Some((path, FileKind::File(size))) = followed(fs, path) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let mut end = size;
    while end > 0 && size - end < most {
        let start = end.saturating_sub(PART);
        let length = usize::try_from(end - start + LONGEST_LINE).unwrap_or(usize::MAX);
        let text = lossy(&fs.read_part(&path, start, length)?);
        if let Some(found) = text.lines().rev().find_map(&wanted) {
            return Ok(Some(found));
        }
        end = start;
    }
    Ok(None)
}

/// The last bytes of a log, from the beginning of a line on.
pub(crate) fn tail(fs: &dyn HostFs, path: &Path, most: u64) -> io::Result<String> {
    let kind = match followed(fs, path) {
        Some((_, kind)) => kind,
        None => fs.kind(path)?,
    };
    let FileKind::File(size) = kind else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no regular file",
        ));
    };
    let start = size.saturating_sub(most);
    let text = lossy(&fs.read_part(path, start, usize::try_from(most).unwrap_or(usize::MAX))?);
    let cut = if start == 0 {
        0
    } else {
        text.find('\n').map_or(text.len(), |at| at + 1)
    };
    Ok(text[cut..].to_owned())
}

/// The path with all links followed, as far as it is there.
pub(crate) fn canonical(fs: &dyn HostFs, path: &Path) -> PathBuf {
    let mut full = PathBuf::from("/");
    for name in path.components().skip(1) {
        full.push(name);
        if let Some((real, _)) = followed(fs, &full) {
            full = real;
        }
    }
    full
}

/// Reads YAML, or JSON, which is YAML too.
pub(crate) fn yaml(text: &str) -> Result<serde_json::Value, String> {
    serde_saphyr::from_str(text).map_err(|error| {
        let message = error.without_snippet().to_string();
        message.lines().next().unwrap_or_default().to_owned()
    })
}

/// True for a file name with this ending behind its last dot.
pub(crate) fn ends_in(name: &str, ending: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, own)| own == ending)
}
