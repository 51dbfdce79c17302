//! `enable-cuda-compat`: an image that brings CUDA's forward-compatibility libraries gets them before the host's, where
//! they are newer and made for the host's driver.

use std::path::Path;

use serde::Deserialize;

use crate::elf::{self, ReadAt};
use crate::root::{self, ContainerRoot, RootError};

/// Where images have the libraries.
pub const DEFAULT_DIR: &str = "/usr/local/cuda/compat";
/// What puts them first: read before all that distributions and CDI specifications write.
pub const CONF: &str = "/etc/ld.so.conf.d/00-compat-pitcrew.conf";
const SECTION: &str = ".note.cuda.fwd_compatibility";
const OWNER: &[u8] = b"NVIDIA Corporation";
const MOST_FILES: usize = 4096;

/// What the host has.
#[derive(Debug, Clone, Copy, Default)]
pub struct Host<'a> {
    /// The driver's version, as 580.95.05.
    pub driver: Option<&'a str>,
    /// The CUDA version that it supports, as 13.0.
    pub cuda: Option<&'a str>,
}

/// What a library says of itself in its note.
#[derive(Debug, Default, Deserialize)]
struct Note {
    #[serde(default, rename = "CUDA Version")]
    cuda: String,
    #[serde(default, rename = "Driver")]
    drivers: Vec<u32>,
}

/// Puts the directory first in the container's search path where its library is to be used; says what it did.
pub fn enable(root: &ContainerRoot, dir: &Path, host: Host<'_>) -> Result<Option<String>, RootError> {
    if host.driver.is_none() && host.cuda.is_none() {
        return Ok(None);
    }
    let dir = root::clean(dir);
    let names = root.list(&dir, MOST_FILES)?;
    let mut libraries = names.iter().filter_map(|name| {
        let name = name.to_str()?;
        let version = name.strip_prefix("libcuda.so.")?;
        version.contains('.').then_some((name, version))
    });
    let Some((name, version)) = libraries.next() else {
        return Ok(None);
    };
    if libraries.next().is_some() {
        return Ok(Some(format!(
            "{} has several libcuda.so.*.*: none is used",
            dir.display()
        )));
    }
    let file = root.open_file(&dir.join(name))?;
    if !is_to_be_used(&file, version, host) {
        return Ok(None);
    }
    // It becomes a line of a file that ldconfig reads.
    let line = dir.to_str().filter(|dir| !dir.contains(char::is_control));
    let line = line.ok_or_else(|| root::at("could not use", &dir, rustix::io::Errno::INVAL))?;
    root.replace(Path::new(CONF), format!("{line}\n").as_bytes())?;
    Ok(None)
}

/// Whether a library of this driver version is newer than the host's, and for it.
fn is_to_be_used(library: &(impl ReadAt + ?Sized), version: &str, host: Host<'_>) -> bool {
    let theirs = host.driver.and_then(major);
    let newer = matches!((theirs, major(version)), (Some(host), Some(library)) if library > host);
    let Some(note) = read_note(library) else {
        return newer;
    };
    match theirs {
        Some(driver) if !note.drivers.is_empty() => newer && note.drivers.contains(&driver),
        _ => {
            matches!((numbers(&note.cuda), host.cuda.and_then(numbers)), (Some(library), Some(host)) if library > host)
        }
    }
}

fn read_note(library: &(impl ReadAt + ?Sized)) -> Option<Note> {
    let (section, alignment) = elf::note_section(library, SECTION)?;
    let (owner, description) = elf::note(&section, alignment)?;
    if owner != OWNER {
        return None;
    }
    serde_json::from_slice(description).ok()
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

fn numbers(version: &str) -> Option<Vec<u32>> {
    version
        .trim_start_matches('v')
        .split('.')
        .map(|part| part.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::tests::library;

    fn host(driver: &'static str) -> Host<'static> {
        Host {
            driver: Some(driver),
            cuda: None,
        }
    }

    #[test]
    fn a_library_with_a_note_is_used_for_the_drivers_that_it_lists_and_only_when_newer() {
        let text = br#"{"Format": 1, "CUDA Version": "13.1", "Driver": [535, 550, 580, 590], "Device": [1]}"#;
        let file = library(SECTION, b"NVIDIA Corporation\0", text);
        let used = |driver| is_to_be_used(file.as_slice(), "590.44.01", host(driver));
        assert!(used("580.95.05"));
        assert!(!used("565.57.01"), "not listed");
        assert!(!used("590.44.01"), "not newer");
        assert!(!used("nonsense"));
    }

    #[test]
    fn a_library_that_lists_no_drivers_goes_by_the_cuda_version() {
        let file = library(SECTION, b"NVIDIA Corporation\0", br#"{"CUDA Version": "13.10"}"#);
        let used = |cuda| {
            is_to_be_used(
                file.as_slice(),
                "1.1",
                Host {
                    driver: Some("540.4.0"),
                    cuda,
                },
            )
        };
        assert!(used(Some("13.9")));
        assert!(!used(Some("13.10")));
        assert!(!used(None));
    }

    #[test]
    fn a_library_without_a_note_goes_by_the_major_version() {
        for file in [
            b"no library".to_vec(),
            library(SECTION, b"Somebody Else\0", b"{}"),
            library(".x", b"y\0", b""),
        ] {
            assert!(is_to_be_used(file.as_slice(), "590.44.01", host("580.95.05")));
            assert!(!is_to_be_used(file.as_slice(), "580.95.05", host("580.44.01")));
            assert!(!is_to_be_used(file.as_slice(), "580.95.05", host("590.44.01")));
        }
    }
}
