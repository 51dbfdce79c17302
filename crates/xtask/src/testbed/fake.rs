//! Imaginary NVIDIA device nodes on the node.

use std::path::Path;

use anyhow::{Result, bail};

use super::paths::Paths;
use super::{Missing, node};

const DRIVER: &str = "/proc/driver/nvidia/version";
/// The character device major that NVIDIA's GPUs have; with a driver loaded, the node is the GPU.
const MAJOR: u32 = 195;
const CONTROL_MINOR: u32 = 255;

/// Makes /dev/nvidia0 and so on, and /dev/nvidiactl, in the node's mount namespace.
pub(crate) fn gpu_nodes(paths: &Paths, count: u32) -> Result<()> {
    refuse_beside_driver(Path::new(DRIVER))?;
    let Some(holder) = node::holder(paths).process() else {
        return Err(Missing::new("the test bed is not up", "run `cargo xtask testbed up` first").into());
    };
    let cards = (0..count).map(|index| (format!("/dev/nvidia{index}"), index));
    for (device, minor) in cards.chain([("/dev/nvidiactl".to_owned(), CONTROL_MINOR)]) {
        let mut command = node::inside(paths, &holder, Path::new("mknod"));
        let exists = node::inside(paths, &holder, Path::new("test"))
            .args(["-c", &device])
            .status()?
            .success();
        if !exists {
            let numbers = [MAJOR.to_string(), minor.to_string()];
            crate::process::run(command.args(["-m", "666", &device, "c"]).args(numbers))?;
        }
        println!("{device}");
    }
    Ok(())
}

fn refuse_beside_driver(driver: &Path) -> Result<()> {
    if driver.exists() {
        bail!(
            "an NVIDIA driver is loaded here ({}), and an imaginary device node would be the real GPU; \
             use the real nodes, or a machine without the driver",
            driver.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beside_a_driver_no_node_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let driver = dir.path().join("version");
        assert!(refuse_beside_driver(&driver).is_ok());
        std::fs::write(&driver, "NVRM version").unwrap();
        let error = refuse_beside_driver(&driver).unwrap_err().to_string();
        assert!(error.contains("would be the real GPU"), "{error}");
    }
}
