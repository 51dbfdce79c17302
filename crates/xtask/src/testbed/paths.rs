//! Where things lie: one directory for all that the bed writes, one cache for what is built.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The directories that the node's mount namespace covers; the bed can't lie inside one.
pub(crate) const COVERED: [&str; 6] = ["/etc", "/usr", "/opt", "/dev", "/var/lib", "/run"];

/// All places of one test bed.
pub(crate) struct Paths {
    root: PathBuf,
    pack: Option<PathBuf>,
}

impl Paths {
    /// `dir` is where the bed lies, `pack` an unpacked archive's directory of programs.
    pub(crate) fn new(dir: Option<PathBuf>, pack: Option<PathBuf>) -> Result<Self> {
        let root = dir.unwrap_or_else(|| crate::cache_dir().join("testbed"));
        let root = std::path::absolute(&root)
            .with_context(|| format!("could not make {} an absolute path", root.display()))?;
        if root
            .components()
            .any(|part| part == std::path::Component::ParentDir)
        {
            bail!(
                "the test bed's directory {} has `..` in it; give it without",
                root.display()
            );
        }
        if let Some(covered) = COVERED.iter().find(|covered| root.starts_with(covered)) {
            bail!(
                "the test bed can't lie in {}: its node covers {covered} with an overlay; \
                 give another directory with --dir",
                root.display()
            );
        }
        // Colons and commas would end a field of the overlay's options.
        if root.to_string_lossy().contains([':', ',', '\'', '"', ' ']) {
            bail!(
                "the test bed's directory {} has a colon, comma, quote or blank in it; give another with --dir",
                root.display()
            );
        }
        let beside = std::env::current_exe()
            .ok()
            .and_then(|exe| exe.parent().map(Path::to_path_buf));
        let pack = match pack {
            Some(dir) => Some(std::path::absolute(dir)?),
            None => beside.filter(|dir| dir.join("kube").is_file() && dir.join("node").is_file()),
        };
        Ok(Self { root, pack })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The unpacked archive's `bin`, where this program runs from one.
    pub(crate) fn pack(&self) -> Option<&Path> {
        self.pack.as_deref()
    }

    pub(crate) fn bin(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// The old containerd and its shim.
    pub(crate) fn bin17(&self) -> PathBuf {
        self.root.join("bin17")
    }

    pub(crate) fn cni(&self) -> PathBuf {
        self.root.join("cni")
    }

    pub(crate) fn run(&self, name: &str) -> PathBuf {
        self.root.join("run").join(name)
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.root.join("log").join(format!("{name}.log"))
    }

    pub(crate) fn pki(&self, name: &str) -> PathBuf {
        self.root.join("pki").join(name)
    }

    pub(crate) fn etc(&self, name: &str) -> PathBuf {
        self.root.join("etc").join(name)
    }

    pub(crate) fn var(&self, name: &str) -> PathBuf {
        self.root.join("var").join(name)
    }

    /// What the node writes to the directories that it covers.
    pub(crate) fn node(&self, name: &str) -> PathBuf {
        self.root.join("node").join(name)
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.pki("admin.conf")
    }

    /// containerd's socket: under our directory, so that the machine's own is never met.
    pub(crate) fn socket(&self) -> PathBuf {
        self.run("containerd.sock")
    }

    /// The search path of everything that runs in the bed.
    pub(crate) fn search_path(&self) -> std::ffi::OsString {
        let own = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
        let mut path = self.bin().into_os_string();
        path.push(":");
        path.push(own);
        path
    }

    /// Makes the directories.
    pub(crate) fn make(&self) -> Result<()> {
        for name in ["run", "log", "pki", "etc/cni", "var", "node"] {
            make_dir(&self.root.join(name))?;
        }
        Ok(())
    }

    /// Held while `up` or `down` works; it goes with the process, so a killed one leaves no lock.
    pub(crate) fn lock(&self) -> Result<File> {
        self.make()?;
        lock(
            &self.run("lock"),
            "another `xtask testbed` works on this bed; waiting for it",
        )
    }
}

/// Takes an exclusive lock on a file, waiting for it with a word to the reader.
pub(crate) fn lock(path: &Path, waiting: &str) -> Result<File> {
    let open = || {
        File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
    };
    let file = open().with_context(|| format!("could not open the lock {}", path.display()))?;
    if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        eprintln!("{waiting} ({})", path.display());
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
            .with_context(|| format!("could not lock {}", path.display()))?;
    }
    Ok(file)
}

/// Makes a directory and those above it, with an error that names it.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| {
        format!(
            "could not make the directory {}; choose another place with --dir or PITCREW_TESTBED",
            path.display()
        )
    })
}

/// Writes a whole file, with an error that names it.
pub(crate) fn write(path: &Path, text: impl AsRef<[u8]>) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("could not write {}", path.display()))
}

/// Removes a tree that may not be there.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("could not remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bed_cannot_lie_where_its_node_covers_the_machine() {
        for bad in ["/var/lib/bed", "/opt/bed", "/run/x", "/tmp/a:b", "/tmp/../etc"] {
            assert!(Paths::new(Some(bad.into()), None).is_err(), "{bad} was accepted");
        }
        assert!(Paths::new(Some("/var/tmp/bed".into()), None).is_ok());
    }
}
