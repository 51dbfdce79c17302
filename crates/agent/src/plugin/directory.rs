//! The directory in which the kubelet and its plugins have their sockets.
//!
//! It is looked at a few times a second, which is cheaper and surer than to be told: a kubelet that starts removes
//! everything in it, and sometimes the directory too.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use pitcrew_kubelet::device_plugin::SOCKET;

/// What makes a socket's file another one. An inode is soon used again; the moment isn't.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl Identity {
    /// How long ago it came to be, by the machine's clock.
    pub(crate) fn age(self) -> Duration {
        let since = u64::try_from(self.seconds).map_or(Duration::ZERO, Duration::from_secs);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        now.unwrap_or_default().saturating_sub(since)
    }
}

/// The sockets that are there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Directory {
    /// The kubelet's.
    pub(crate) kubelet: Option<Identity>,
    /// All others, by name.
    pub(crate) plugins: BTreeMap<String, Identity>,
}

impl Directory {
    /// Looks. What can't be read isn't there.
    pub(crate) fn read(dir: &Path) -> Self {
        let mut directory = Self::default();
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if !metadata.file_type().is_socket() {
                continue;
            }
            let identity = Identity {
                device: metadata.dev(),
                inode: metadata.ino(),
                seconds: metadata.ctime(),
                nanoseconds: metadata.ctime_nsec(),
            };
            match entry.file_name().to_str() {
                Some(SOCKET) => directory.kubelet = Some(identity),
                Some(name) => {
                    directory.plugins.insert(name.to_owned(), identity);
                }
                None => {}
            }
        }
        directory
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_socket_that_was_made_again_is_another_one() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Directory::read(&dir.path().join("none")), Directory::default());
        let path = dir.path().join(SOCKET);
        std::fs::write(dir.path().join("kubelet_internal_checkpoint"), "{}").unwrap();
        let first = UnixListener::bind(&path).unwrap();
        let _other = UnixListener::bind(dir.path().join("nvidia-gpu.sock")).unwrap();
        let before = Directory::read(dir.path());
        assert!(before.plugins.keys().eq(["nvidia-gpu.sock"]));
        assert_eq!(Directory::read(dir.path()), before);
        drop(first);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(Directory::read(dir.path()).kubelet, None);
        std::thread::sleep(Duration::from_millis(10));
        let _second = UnixListener::bind(&path).unwrap();
        let after = Directory::read(dir.path());
        assert_ne!(after.kubelet, before.kubelet);
        assert!(after.kubelet.unwrap().age() < Duration::from_mins(1));
    }
}
