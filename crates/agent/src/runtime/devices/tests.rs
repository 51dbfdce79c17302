use std::collections::BTreeSet;
use std::sync::Mutex;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use pitcrew_scenario::HostRoot;

use super::*;
use crate::testing::never_asked;

/// Remembers what it was asked for.
#[derive(Default)]
struct Kernel {
    loaded: Mutex<Vec<String>>,
    made: Mutex<BTreeSet<Node>>,
    refuses_modules: bool,
    refuses_nodes: bool,
}

impl System for Kernel {
    never_asked!(restart_unit, start, find, run);

    fn load_module(&self, name: &str) -> BoxFuture<'_, io::Result<()>> {
        let result = if self.refuses_modules {
            Err(io::Error::other("Key was rejected by service"))
        } else {
            self.loaded.lock().unwrap().push(name.to_owned());
            Ok(())
        };
        async { result }.boxed()
    }

    fn make_char_device(&self, path: &Path, major: u32, minor: u32) -> io::Result<()> {
        if self.refuses_nodes {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let path = path.to_owned();
        self.made.lock().unwrap().insert(Node { path, major, minor });
        Ok(())
    }
}

fn root(manifest: &str) -> HostRoot {
    let find = |name: &str| HostRoot::builtin_text(name).map(str::to_owned);
    HostRoot::parse(manifest, "x", &find).unwrap()
}

async fn prepared(root: &HostRoot, kernel: &Kernel) -> Prepared {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("dev/char")).unwrap();
    prepare(root, &Host::gather(root), dir.path(), kernel).await
}

#[tokio::test]
async fn from_an_empty_dev_every_node_of_gpus_control_and_mig_is_made() {
    for scenario in ["rtx3060", "mixed", "h100x8"] {
        let whole = root(&format!("description: x\nlike: rke2\nscenario: {scenario}\n"));
        let expected: BTreeSet<Node> = Host::gather(&whole)
            .devices
            .nodes
            .into_iter()
            .map(|node| Node {
                path: node.path,
                major: node.major,
                minor: node.minor,
            })
            .collect();
        let empty = root(&format!(
            "description: x\nlike: rke2\nscenario: {scenario}\nremove: [/dev]\ndirectories: [/dev, /dev/char]\n"
        ));
        assert_eq!(Host::gather(&empty).devices.nodes, []);
        let kernel = Kernel::default();
        let done = prepared(&empty, &kernel).await;
        assert_eq!(done.remarks, [""; 0]);
        assert_eq!(done.loaded, [""; 0], "they are loaded");
        assert_eq!(*kernel.made.lock().unwrap(), expected, "{scenario}");
        let links = done
            .made
            .iter()
            .filter(|path| path.starts_with("/dev/char"))
            .count();
        assert_eq!(links, expected.len(), "{scenario}");
        // Where all is there, nothing is done.
        let kernel = Kernel::default();
        assert_eq!(prepared(&whole, &kernel).await, Prepared::default(), "{scenario}");
    }
}

#[tokio::test]
async fn a_headless_machine_gets_the_modules_that_nobody_has_loaded() {
    let bare = "description: x\nlike: rke2\nscenario: rtx3060\nfiles: {/proc/modules: 'nvidia 14381056 0 - Live 0x0 (O)'}\n";
    let kernel = Kernel::default();
    let done = prepared(&root(bare), &kernel).await;
    assert_eq!(done.loaded, ["nvidia-uvm", "nvidia-modeset"]);
    let nothing = "description: x\nlike: rke2\nscenario: rtx3060\ndriver: {loaded: false}\nfiles: {/proc/modules: ''}\n";
    assert_eq!(
        modules(&Host::gather(&root(nothing))),
        ["nvidia", "nvidia-uvm", "nvidia-modeset"]
    );
    let kernel = Kernel {
        refuses_modules: true,
        ..Kernel::default()
    };
    let done = prepared(&root(nothing), &kernel).await;
    assert_eq!(done.remarks.len(), 1, "{:?}", done.remarks);
    assert!(done.remarks[0].contains("nvidia could not be loaded: Key was rejected by service"));
}

#[test]
fn a_gpu_that_another_driver_has_is_not_touched() {
    for driver in ["vfio-pci", "nouveau"] {
        let host = Host::gather(&root(&format!(
            "description: x\nlike: rke2\nscenario: rtx3060\ndriver: {{loaded: false}}\nfiles: {{/proc/modules: ''}}\n\
             links: {{'/sys/bus/pci/devices/0000:01:00.0/driver': /sys/bus/pci/drivers/{driver}}}\n"
        )));
        assert_eq!(
            host.gpus.value().unwrap()[0].driver,
            Reading::Value(driver.to_owned())
        );
        assert_eq!(modules(&host), [""; 0], "{driver}");
    }
    let none = Host::gather(&root("description: x\nlike: rke2\n"));
    assert_eq!(modules(&none), [""; 0], "there is no GPU");
}

#[tokio::test]
async fn who_may_not_make_nodes_is_told_once() {
    let empty = root("description: x\nlike: rke2\nscenario: h100x8\nremove: [/dev]\ndirectories: [/dev]\n");
    let kernel = Kernel {
        refuses_nodes: true,
        ..Kernel::default()
    };
    let done = prepared(&empty, &kernel).await;
    assert_eq!(
        done.remarks,
        ["`/dev/nvidia-caps/nvidia-cap1` could not be made: permission denied"]
    );
}

#[test]
fn a_node_with_a_number_of_another_time_is_made_anew() {
    let stale = root("description: x\nlike: rke2\nscenario: rtx3060\ndevices: {/dev/nvidia-uvm: '511:0'}\n");
    let all = changes(&stale, &nodes(&stale));
    let path = Path::new("/dev/nvidia-uvm");
    let node = Node {
        path: path.to_owned(),
        major: 238,
        minor: 0,
    };
    assert_eq!(
        all,
        [Change::File(Step::remove(path.to_owned())), Change::Node(node)]
    );
    let file = root("description: x\nlike: rke2\nscenario: rtx3060\nfiles: {/dev/nvidia-uvm: x}\n");
    assert_eq!(
        changes(&file, &nodes(&file)),
        [],
        "whoever put a file there meant something by it"
    );
}

#[test]
fn numbers_are_read_out_of_the_drivers_files() {
    let text =
        "Model: \t\t NVIDIA H100\nBus Location: \t 0000:01:00.0\nDevice Minor: \t 3\nGPU Excluded:\t No\n";
    assert_eq!(parse_information(text), Some(3));
    assert_eq!(parse_information(&text.replace("\t No", "\t Yes")), None);
    assert_eq!(parse_information("Device Minor: many"), None);
    let text = "DeviceFileMinor: 12\nDeviceFileMode: 292\nDeviceFileModify: 1\n";
    assert_eq!(parse_capability(text), Some(12));
    assert_eq!(parse_capability("DeviceFileMode: 292"), None);
}
