//! Imaginary NVIDIA GPUs on the node: what the kernel and the driver show of a scenario, as files, links and device
//! nodes in the node's mount namespace.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use pitcrew_scenario::{Change, HostRoot, Machine, Scenario};
use rustix::mount::mount_bind_recursive;

use super::paths::{Paths, make_dir, remove_tree};
use super::{FakeGpusArgs, Missing, node};

const DRIVER: &str = "/proc/driver/nvidia/version";

/// A root with nothing of its own: what is in it is the machine's.
const BARE: &str = "description: what a machine shows\nfiles: {}\n";

/// What can't be written to, and so is covered: where the scenario's is, there the machine's is not.
const COVERED: [&str; 5] = [
    "/proc/driver",
    "/proc/modules",
    "/proc/devices",
    "/sys/bus/pci/devices",
    "/sys/bus/pci/drivers",
];
/// What is copied. The rest of a scenario's files is in directories of the machine's own that nothing can cover.
const COPIED: [&str; 3] = ["/dev", "/usr", "/etc"];

/// Gives the node the GPUs of a scenario, in place of those it was given before.
pub(crate) fn gpus(paths: &Paths, args: &FakeGpusArgs) -> Result<()> {
    refuse_beside_driver(Path::new(DRIVER))?;
    let Some(holder) = node::holder(paths).process() else {
        return Err(Missing::new("the test bed is not up", "run `cargo xtask testbed up` first").into());
    };
    let dir = paths.node("gpus");
    lay_out(args, &dir)?;
    node::run_inside(paths, &holder, &["place-gpus"])?;
    for path in devices(&dir.join("dev"))? {
        println!("{}", Path::new("/dev").join(path).display());
    }
    Ok(())
}

/// Writes the scenario's files. The directory itself stays: it may be mounted.
fn lay_out(args: &FakeGpusArgs, dir: &Path) -> Result<()> {
    let file = Path::new(&args.scenario);
    let scenario = if file.is_file() {
        Scenario::load(file)?
    } else {
        Scenario::builtin(&args.scenario)?
    };
    let machine = Machine::new(scenario);
    if let Some(file) = &args.changes {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("could not read the changes in {}", file.display()))?;
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let change: Change =
                serde_json::from_str(line).with_context(|| format!("`{line}` is no change"))?;
            machine.change(&change)?;
        }
    }
    let new = dir.with_extension("new");
    remove_tree(&new)?;
    make_dir(&new)?;
    let left_out = HostRoot::parse(BARE, "bare", &|_| None)?
        .with_machine(machine)
        .build(&new)?;
    if let Some(path) = left_out.first() {
        bail!("{} could not be made; the test bed needs root", path.display());
    }
    make_libraries(args, &new)?;
    make_dir(dir)?;
    for covered in COVERED {
        let (from, to) = (under(&new, covered), under(dir, covered));
        if from.is_file() {
            // Written into the file that is mounted.
            super::paths::write(&to, std::fs::read(&from)?)?;
        } else {
            make_dir(&to)?;
            empty(&to)?;
            if from.is_dir() {
                copy(&from, &to)?;
            }
        }
    }
    for copied in COPIED {
        let to = under(dir, copied);
        remove_tree(&to)?;
        if under(&new, copied).exists() {
            std::fs::rename(under(&new, copied), &to)
                .with_context(|| format!("could not place {}", to.display()))?;
        }
    }
    remove_tree(&new)
}

/// The scenario's libraries are empty files. Here each is one that can be loaded, and that of NVML the one that was given.
fn make_libraries(args: &FakeGpusArgs, root: &Path) -> Result<()> {
    let usr = root.join("usr");
    if !usr.is_dir() {
        return Ok(());
    }
    for path in tree(&usr)? {
        let library = usr.join(&path);
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let Some((base, _)) = name.split_once(".so.") else {
            continue;
        };
        if library.is_symlink() || !name.starts_with("lib") {
            continue;
        }
        match &args.nvml {
            Some(nvml) if base == "libnvidia-ml" => {
                std::fs::copy(nvml, &library)
                    .with_context(|| format!("could not copy {}", nvml.display()))?;
            }
            _ => {
                let mut cc = std::process::Command::new("cc");
                cc.args(["-shared", "-x", "c", "/dev/null", "-o"])
                    .arg(&library)
                    .arg(format!("-Wl,-soname,{base}.so.1"));
                crate::process::run(&mut cc)?;
            }
        }
    }
    Ok(())
}

/// In the node's mount namespace: covers what must be covered and copies the rest.
pub(crate) fn place(paths: &Paths) -> Result<()> {
    let dir = paths.node("gpus");
    let mounted = std::fs::read_to_string("/proc/self/mountinfo").context("could not read the mounts")?;
    for covered in COVERED {
        let is_mounted = mounted
            .lines()
            .any(|line| line.split(' ').nth(4) == Some(covered));
        let from = under(&dir, covered);
        // A kernel without modules has no list of them.
        if !is_mounted && from.exists() && Path::new(covered).exists() {
            mount_bind_recursive(&from, covered).with_context(|| format!("could not cover {covered}"))?;
        }
    }
    let list = dir.join("placed");
    for path in std::fs::read_to_string(&list).unwrap_or_default().lines() {
        let _ = std::fs::remove_file(path);
    }
    let mut placed = String::new();
    for copied in COPIED {
        let from = under(&dir, copied);
        if from.is_dir() {
            copy(&from, Path::new(copied))?;
            for path in tree(&from)? {
                let place = Path::new(copied).join(path);
                let _ = writeln!(placed, "{}", place.display());
            }
        }
    }
    super::paths::write(&list, placed)
}

fn under(dir: &Path, path: &str) -> PathBuf {
    dir.join(path.trim_start_matches('/'))
}

fn empty(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            remove_tree(&path)?;
        } else {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Links, device nodes and modes as they are.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut cp = std::process::Command::new("cp");
    crate::process::run(
        cp.args(["-a", "--remove-destination"])
            .arg(from.join("."))
            .arg(to),
    )
}

/// What is no directory, below `dir`.
fn tree(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(next) = left.pop() {
        for entry in std::fs::read_dir(&next)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                left.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(dir)?.to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

fn devices(dir: &Path) -> Result<Vec<PathBuf>> {
    if dir.is_dir() { tree(dir) } else { Ok(Vec::new()) }
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
