//! Device nodes of NVIDIA's driver.

use std::path::Path;

use pitcrew_core::ports::{FileKind, HostFs};

use crate::facts::{DeviceNode, DeviceNodes};
use crate::read;

pub(crate) fn gather(fs: &dyn HostFs) -> DeviceNodes {
    let mut nodes = Vec::new();
    collect(fs, Path::new("/dev"), &mut nodes);
    nodes.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    DeviceNodes {
        nodes,
        majors: read::text(fs, "/proc/devices").map(|text| parse_devices(&text)),
    }
}

/// Character devices whose name begins with `nvidia`, and those in the directories that do.
fn collect(fs: &dyn HostFs, dir: &Path, nodes: &mut Vec<DeviceNode>) {
    let top = dir == Path::new("/dev");
    for name in read::names_or_none(fs, dir) {
        if top && !name.starts_with("nvidia") {
            continue;
        }
        let path = dir.join(name);
        match fs.kind(&path) {
            Ok(FileKind::CharDevice { major, minor }) => nodes.push(DeviceNode { path, major, minor }),
            Ok(FileKind::Directory) if top => collect(fs, &path, nodes),
            _ => {}
        }
    }
}

/// NVIDIA's character devices out of the text of `/proc/devices`, by name.
pub fn parse_devices(text: &str) -> Vec<(String, u32)> {
    let characters = text.lines().take_while(|line| !line.starts_with("Block devices"));
    let mut found: Vec<(String, u32)> = characters
        .filter_map(|line| {
            let (major, name) = line.trim().split_once(' ')?;
            Some((name.trim().to_owned(), major.parse().ok()?))
        })
        .filter(|(name, _)| name.starts_with("nvidia"))
        .collect();
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn character_devices_of_nvidia_are_read_and_no_block_devices() {
        let text = "Character devices:\n  1 mem\n195 nvidia\n195 nvidiactl\n238 nvidia-uvm\n241 nvidia-caps\n\nBlock devices:\n  8 sd\n195 nvidia-disk\n";
        assert_eq!(
            parse_devices(text),
            [
                ("nvidia", 195),
                ("nvidia-caps", 241),
                ("nvidia-uvm", 238),
                ("nvidiactl", 195)
            ]
            .map(|(name, major)| (name.to_owned(), major))
        );
    }
}
