//! `update-ldcache`: the container's loader learns of the directories that the driver's libraries were mounted to.

use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::ldconfig::{self, LdconfigError};
use crate::root::{self, ContainerRoot, Last, RootError};

/// The host's ldconfig, where no option says another.
pub const LDCONFIG: &str = "/sbin/ldconfig";
const CONF: &str = "/etc/ld.so.conf";
const CONF_DIR: &str = "/etc/ld.so.conf.d";
const INCLUDE: &str = "include /etc/ld.so.conf.d/*.conf";
/// Before what distributions write, so that the driver's libraries win over those of an image.
const OURS: &str = "/etc/ld.so.conf.d/00-nvcr-pitcrew.conf";
/// Behind everything: the image's own system directories, which the host's ldconfig may not know.
const SYSTEM: &str = "/etc/ld.so.conf.d/zz-nvcr-pitcrew.conf";
const MOST_BYTES: usize = 1 << 20;
const MOST_FILES: usize = 4096;

/// Why the cache could not be written.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// A folder that can't stand in a configuration file.
    #[error("--folder `{0}` is not an absolute path of one line")]
    Folder(String),
    /// In the container.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The host's ldconfig.
    #[error(transparent)]
    Ldconfig(#[from] LdconfigError),
}

/// Writes the configuration and runs the host's `ldconfig` in the container. What ldconfig remarked is returned.
pub fn update<'a>(
    root: &ContainerRoot,
    ldconfig: Option<&str>,
    folders: impl Iterator<Item = &'a str>,
) -> Result<Vec<String>, CacheError> {
    let mut lines: Vec<&str> = Vec::new();
    for folder in folders {
        if !folder.starts_with('/') || folder.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return Err(CacheError::Folder(folder.to_owned()));
        }
        if !lines.contains(&folder) {
            lines.push(folder);
        }
    }
    configure(root, &lines)?;
    // `@` says "of the host", which it always is.
    let path = ldconfig.unwrap_or(LDCONFIG).trim_start_matches('@');
    // Ubuntu's is a script around this one.
    let real = PathBuf::from(format!("{path}.real"));
    let program = if real.is_file() { real } else { PathBuf::from(path) };
    Ok(ldconfig::run(root, &program)?)
}

/// Writes what ldconfig is to read, and refuses what would make it wait for ever.
fn configure(root: &ContainerRoot, folders: &[&str]) -> Result<(), CacheError> {
    if !folders.is_empty() {
        root.replace(Path::new(OURS), lines(folders).as_bytes())?;
    }
    let system: Vec<&str> = system_dirs()
        .iter()
        .copied()
        .filter(|dir| root.has(Path::new(dir)))
        .collect();
    if !system.is_empty() {
        root.replace(Path::new(SYSTEM), lines(&system).as_bytes())?;
    }
    let conf = root.read(Path::new(CONF), MOST_BYTES)?.unwrap_or_default();
    if let Some(conf) = with_include(&conf) {
        root.replace(Path::new(CONF), &conf)?;
    }
    for name in root.list(Path::new(CONF_DIR), MOST_FILES)? {
        let path = Path::new(CONF_DIR).join(name);
        if path.extension().is_some_and(|extension| extension == "conf") {
            // ldconfig passes over links to nothing, and would wait at a FIFO.
            match root.open_file(&path) {
                Err(error) if !error.is_absent() => return Err(error.into()),
                _ => {}
            }
        }
    }
    musl(root, folders)?;
    Ok(())
}

fn lines(dirs: &[&str]) -> String {
    dirs.iter().flat_map(|dir| [dir, "\n"]).collect()
}

/// Directories that distributions build their own loader with, on this processor.
fn system_dirs() -> [&'static str; 4] {
    if cfg!(target_arch = "aarch64") {
        [
            "/lib64",
            "/usr/lib64",
            "/lib/aarch64-linux-gnu",
            "/usr/lib/aarch64-linux-gnu",
        ]
    } else {
        [
            "/lib64",
            "/usr/lib64",
            "/lib/x86_64-linux-gnu",
            "/usr/lib/x86_64-linux-gnu",
        ]
    }
}

/// The configuration with the line that includes the directory; none where it has it.
fn with_include(conf: &[u8]) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(conf);
    let includes = |line: &str| {
        let mut words = line.split_whitespace();
        words.next() == Some("include")
            && words.any(|word| matches!(word, "ld.so.conf.d/*.conf" | "/etc/ld.so.conf.d/*.conf"))
    };
    if text.lines().any(includes) {
        return None;
    }
    let mut changed = format!("{INCLUDE}\n").into_bytes();
    changed.extend_from_slice(conf);
    Some(changed)
}

/// musl (Alpine) has no cache: its loader reads a list of directories. glibc's libraries load there only with help such
/// as gcompat, but then they are found.
fn musl(root: &ContainerRoot, folders: &[&str]) -> Result<(), RootError> {
    let arch = std::env::consts::ARCH;
    let loader = format!("/lib/ld-musl-{arch}.so.1");
    match root.resolve(Path::new(&loader), Last::Itself) {
        Ok(_) => {}
        Err(RootError::Path { source, .. }) if source.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            return Ok(());
        }
        Err(error) if error.is_absent() => return Ok(()),
        Err(error) => return Err(error),
    }
    let path = root::clean(Path::new(&format!("/etc/ld-musl-{arch}.path")));
    let found = root.read(&path, MOST_BYTES)?;
    if let Some(changed) = musl_path(found.as_deref(), folders) {
        root.replace(&path, &changed)?;
    }
    Ok(())
}

/// The list with what it lacks; none where it lacks nothing. Without a file musl uses its default, which a file replaces.
fn musl_path(found: Option<&[u8]>, folders: &[&str]) -> Option<Vec<u8>> {
    let mut list = found.unwrap_or(b"/lib\n/usr/local/lib\n/usr/lib\n").to_vec();
    let has = |folder: &&&str| {
        let mut entries = list.split(|byte| matches!(byte, b':' | b'\n'));
        entries.any(|entry| entry == folder.as_bytes())
    };
    let missing: Vec<&str> = folders.iter().filter(|folder| !has(folder)).copied().collect();
    if missing.is_empty() {
        return None;
    }
    if !list.is_empty() && !list.ends_with(b"\n") {
        list.push(b'\n');
    }
    list.extend(lines(&missing).into_bytes());
    Some(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_include_is_added_once_and_before_what_is_there() {
        let added = with_include(b"/opt/lib\n").unwrap();
        assert_eq!(added, b"include /etc/ld.so.conf.d/*.conf\n/opt/lib\n");
        assert_eq!(with_include(&added), None);
        assert_eq!(
            with_include(b"# x\ninclude  ld.so.conf.d/*.conf\n"),
            None,
            "Fedora's"
        );
        assert!(with_include(b"#include /etc/ld.so.conf.d/*.conf").is_some());
    }

    #[test]
    fn the_list_of_musl_keeps_its_default_and_gets_each_folder_once() {
        let list = musl_path(None, &["/usr/lib64", "/lib"]).unwrap();
        assert_eq!(list, b"/lib\n/usr/local/lib\n/usr/lib\n/usr/lib64\n");
        assert_eq!(musl_path(Some(&list), &["/usr/lib64"]), None);
        assert_eq!(musl_path(Some(b"/a:/b"), &["/b", "/c"]).unwrap(), b"/a:/b\n/c\n");
    }
}
