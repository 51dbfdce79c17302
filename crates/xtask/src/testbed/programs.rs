//! Which programs the bed runs and where each comes from: an unpacked archive, or the cache of built
//! ones, and `KUBEBUILDER_ASSETS` for those that it holds.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::paths::{Paths, make_dir, remove_tree};
use super::{build, image};

/// Names by which each binary is called. Those of the CNI and of the old containerd have places of their own.
pub(crate) const BINARIES: [(&str, &[&str]); 4] = [
    (
        "kube",
        &[
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kubelet",
            "kubectl",
            "etcd",
            "helm",
        ],
    ),
    ("node", &["containerd", "ctr", "crirun"]),
    ("containerd-shim-runc-v2", &[]),
    ("runc", &[]),
];
pub(crate) const CNI: [&str; 4] = ["apifwd", "bridge", "host-local", "loopback"];
pub(crate) const OLD: [&str; 2] = ["containerd", "containerd-shim-runc-v2"];
/// Under a directory of programs: the CNI plugins, and the old containerd.
pub(crate) const CNI_DIR: &str = "cni";
pub(crate) const OLD_DIR: &str = "containerd17";

/// Where the programs and images are.
pub(crate) struct Programs {
    /// Each program by its path below `bin` and the file that it is.
    pub(crate) files: Vec<(PathBuf, PathBuf)>,
    pub(crate) images: Vec<PathBuf>,
    /// What `pack --with` added: for the search path only.
    extra: Vec<(PathBuf, PathBuf)>,
}

/// Every program's place below a directory of programs.
pub(crate) fn layout() -> Vec<PathBuf> {
    let top = BINARIES.iter().map(|(name, _)| PathBuf::from(name));
    let cni = CNI.iter().map(|name| Path::new(CNI_DIR).join(name));
    let old = OLD.iter().map(|name| Path::new(OLD_DIR).join(name));
    top.chain(cni).chain(old).collect()
}

/// Finds the programs, building what is not there.
pub(crate) fn provide(paths: &Paths) -> Result<Programs> {
    if let Some(bin) = paths.pack() {
        return unpacked(bin);
    }
    let files = build::all()?;
    let images = image::provide()?;
    Ok(Programs {
        files,
        images,
        extra: Vec::new(),
    })
}

/// The programs of an unpacked archive.
fn unpacked(bin: &Path) -> Result<Programs> {
    let mut files = Vec::new();
    for place in layout() {
        let file = bin.join(&place);
        if file.is_file() {
            files.push((place, file));
        } else if !place.starts_with(OLD_DIR) {
            // The old containerd may have been left out to save room.
            return Err(super::Missing::new(
                format!(
                    "the unpacked test bed in {} has no {}",
                    bin.display(),
                    place.display()
                ),
                "unpack every part of the archive into the same directory",
            )
            .into());
        }
    }
    let extra = list(bin)?
        .into_iter()
        .filter_map(|file| Some((PathBuf::from(file.file_name()?), file.clone())))
        .filter(|(name, file)| file.is_file() && !files.iter().any(|(known, _)| known == name))
        .collect();
    let images = list(&bin.with_file_name("images"))?;
    Ok(Programs { files, images, extra })
}

/// The entries of a directory, in order.
pub(crate) fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("could not list {}", dir.display()))?;
    let mut found = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    found.sort();
    Ok(found)
}

impl Programs {
    /// Makes the bed's own directories of links, which its search path names.
    pub(crate) fn link(&self, paths: &Paths) -> Result<()> {
        for dir in [paths.bin(), paths.bin17(), paths.cni()] {
            remove_tree(&dir)?;
            make_dir(&dir)?;
        }
        let assets = std::env::var_os("KUBEBUILDER_ASSETS")
            .filter(|value| !value.is_empty())
            .map(PathBuf::from);
        for (place, file) in self.files.iter().chain(&self.extra) {
            let dir = if place.starts_with(CNI_DIR) {
                paths.cni()
            } else if place.starts_with(OLD_DIR) {
                paths.bin17()
            } else {
                paths.bin()
            };
            let Some(name) = place.file_name() else { continue };
            link(file, &dir.join(name))?;
            for (_, others) in BINARIES.iter().filter(|(binary, _)| Path::new(binary) == place) {
                for other in *others {
                    let given = assets
                        .as_ref()
                        .map(|dir| dir.join(other))
                        .filter(|file| file.is_file());
                    link(given.as_deref().unwrap_or(file), &dir.join(other))?;
                }
            }
        }
        Ok(())
    }
}

fn link(file: &Path, at: &Path) -> Result<()> {
    std::os::unix::fs::symlink(file, at)
        .with_context(|| format!("could not link {} to {}", at.display(), file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unpacked_bed_that_lacks_a_program_says_which() {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        for place in layout() {
            make_dir(bin.join(&place).parent().unwrap()).unwrap();
            std::fs::write(bin.join(&place), "").unwrap();
        }
        make_dir(&dir.path().join("images")).unwrap();
        std::fs::write(bin.join("pitcrew"), "").unwrap();
        let found = unpacked(&bin).unwrap();
        assert_eq!(found.extra.len(), 1, "what was added with --with is found");
        std::fs::remove_dir_all(bin.join(OLD_DIR)).unwrap();
        assert!(unpacked(&bin).is_ok(), "the old containerd may be missing");
        std::fs::remove_file(bin.join("runc")).unwrap();
        let error = unpacked(&bin).err().unwrap();
        assert!(error.downcast_ref::<crate::testbed::Missing>().is_some());
        assert!(error.to_string().contains("no runc"), "{error}");
    }
}
