//! The static binary of hooks and wrapper: hostile roots, a real container through runc, and what the wrapper costs.
#![expect(
    clippy::unwrap_used,
    reason = "a test that can't prepare its files has failed"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pitcrew_tests::{Outcome, run, testbed};
use serde_json::{Value, json};

fn hook_binary() -> PathBuf {
    let path =
        std::env::var_os("PITCREW_HOOK").expect("PITCREW_HOOK is not set: run `cargo xtask test --ring 3`");
    path.into()
}

/// runc, as the test bed built it.
fn runc() -> PathBuf {
    let kubeconfig = PathBuf::from(testbed(&["kubeconfig"]).ok().trim());
    let bed = kubeconfig
        .ancestors()
        .nth(2)
        .expect("the kubeconfig lies in the bed");
    bed.join("bin/runc")
}

/// A bundle whose container only ends; its root has a libc, a library of its own and busybox's place empty.
struct Bundle {
    dir: tempfile::TempDir,
}

impl Bundle {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("rootfs");
        for made in ["etc", "bin", "usr/lib/gpu", "lib64", "proc", "dev", "sys"] {
            fs::create_dir_all(root.join(made)).expect("it can be made");
        }
        let bundle = Self { dir };
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox is installed");
        // Any library does: ldconfig looks at its name and its SONAME.
        let library = [
            "/lib/x86_64-linux-gnu/libz.so.1",
            "/lib/x86_64-linux-gnu/libc.so.6",
        ];
        let library = library
            .iter()
            .find(|path| Path::new(path).exists())
            .expect("the host has a libc");
        fs::copy(
            library,
            root.join("usr/lib/gpu")
                .join(Path::new(library).file_name().unwrap()),
        )
        .unwrap();
        bundle
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn root(&self) -> PathBuf {
        self.path().join("rootfs")
    }

    /// Runs a hook of the static binary with this bundle's root in the state.
    fn hook(&self, arguments: &[&str]) -> Outcome {
        let mut command = Command::new(hook_binary());
        command
            .arg("cdi-hook")
            .args(arguments)
            .env("LD_PRELOAD", "/evil.so")
            .env("GLIBC_TUNABLES", "x=y");
        run(
            command,
            &json!({"ociVersion": "1.0.2", "bundle": self.path(), "root": self.root()}).to_string(),
        )
    }

    /// What ldconfig of the host finds in the container's cache.
    fn cache(&self) -> String {
        let mut ldconfig = Command::new("/sbin/ldconfig");
        ldconfig.arg("-r").arg(self.root()).arg("-p");
        run(ldconfig, "").ok()
    }

    fn write(&self, config: &Value) {
        fs::write(self.path().join("config.json"), config.to_string()).unwrap();
    }

    fn read(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path().join("config.json")).unwrap()).unwrap()
    }
}

fn config(env: &[&str], hooks: &Value) -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0}, "cwd": "/", "env": env, "args": ["/bin/busybox", "cat", "/etc/ld.so.conf.d/00-nvcr-pitcrew.conf"],
            "capabilities": {"bounding": [], "effective": [], "permitted": []},
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        ],
        "hooks": hooks,
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}]},
    })
}

#[test]
#[ignore = "needs the static binary: cargo xtask test --ring 3"]
fn the_binary_is_small_and_names_no_loader() {
    let bytes = fs::read(hook_binary()).unwrap();
    assert!(bytes.len() <= 2_000_000, "{} bytes", bytes.len());
    let word = |at: usize, size: usize| {
        bytes[at..at + size]
            .iter()
            .rev()
            .fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let at = |number: u64| usize::try_from(number).unwrap();
    let mut kinds = Vec::new();
    for index in 0..word(56, 2) {
        let segment = at(word(32, 8) + index * word(54, 2));
        kinds.push(word(segment, 4));
        // PT_DYNAMIC: no DT_NEEDED in it.
        if word(segment, 4) == 2 {
            let (start, size) = (at(word(segment + 8, 8)), at(word(segment + 32, 8)));
            assert!(
                (start..start + size).step_by(16).all(|tag| word(tag, 8) != 1),
                "it has NEEDED"
            );
        }
    }
    assert!(!kinds.contains(&3), "it has INTERP: {kinds:?}");
    assert_eq!(word(16, 2), 3, "it is not position-independent");
}

#[test]
#[ignore = "needs the static binary: cargo xtask test --ring 3"]
fn a_hostile_root_changes_nothing_outside_of_it() {
    let bundle = Bundle::new();
    let root = bundle.root();
    let canary = tempfile::tempdir().unwrap();
    fs::create_dir_all(canary.path().join("ld.so.conf.d")).unwrap();
    fs::write(canary.path().join("ld.so.conf"), "canary\n").unwrap();
    fs::write(canary.path().join("ld.so.cache"), "canary\n").unwrap();
    let seen = || {
        run(
            {
                let mut list = Command::new("sh");
                list.arg("-c").arg(format!(
                    "cd {} && ls -lAR --time-style=+ . && cat ld.so.conf ld.so.cache",
                    canary.path().display()
                ));
                list
            },
            "",
        )
        .ok()
    };
    let before = seen();
    let hostile: [(&str, &dyn Fn()); 4] = [
        ("etc", &|| {
            fs::remove_dir_all(root.join("etc")).unwrap();
            symlink(canary.path(), root.join("etc")).unwrap();
        }),
        ("etc/ld.so.conf.d", &|| {
            fs::remove_file(root.join("etc")).unwrap();
            fs::create_dir(root.join("etc")).unwrap();
            symlink("../../../../../../../..", root.join("up")).unwrap();
            symlink(
                format!("../up{}/ld.so.conf.d", canary.path().display()),
                root.join("etc/ld.so.conf.d"),
            )
            .unwrap();
        }),
        ("etc/ld.so.cache", &|| {
            fs::remove_file(root.join("etc/ld.so.conf.d")).unwrap();
            symlink(canary.path().join("ld.so.cache"), root.join("etc/ld.so.cache")).unwrap();
            symlink(canary.path().join("ld.so.cache"), root.join("etc/ld.so.cache~")).unwrap();
        }),
        ("etc/ld.so.conf.d/x.conf", &|| {
            let mut fifo = Command::new("mkfifo");
            fifo.arg(root.join("etc/ld.so.conf.d/x.conf"));
            run(fifo, "").ok();
        }),
    ];
    for (name, prepare) in hostile {
        prepare();
        let begin = Instant::now();
        let outcome = bundle.hook(&["update-ldcache", "--folder", "/usr/lib/gpu"]);
        assert!(begin.elapsed() < Duration::from_secs(10), "{name}: {outcome:?}");
        assert_eq!(seen(), before, "{name}: {outcome:?}");
    }
    let refused = bundle
        .hook(&["update-ldcache", "--folder", "/usr/lib/gpu"])
        .refused();
    assert!(
        refused.contains("x.conf in the container is not a regular file"),
        "{refused}"
    );
    assert_eq!(bundle.hook(&["from-the-future"]).code, Some(0));

    // `etc` is by turns a link inside and a link out, while the hooks run; what the latter means exists inside too.
    fs::remove_file(root.join("etc/ld.so.conf.d/x.conf")).unwrap();
    fs::rename(root.join("etc"), root.join("kept")).unwrap();
    symlink("kept", root.join("etc")).unwrap();
    fs::create_dir_all(root.join(canary.path().strip_prefix("/").unwrap())).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for target in [canary.path(), Path::new("kept")] {
                    symlink(target, root.join("next")).unwrap();
                    fs::rename(root.join("next"), root.join("etc")).unwrap();
                }
            }
        });
        for _ in 0..60 {
            // It may fail; it may not go out.
            bundle.hook(&["update-ldcache", "--folder", "/usr/lib/gpu"]);
            bundle.hook(&[
                "create-symlinks",
                "--link",
                "x::/etc/made",
                "--link",
                "x::/etc/ld.so.conf",
            ]);
            bundle.hook(&["chmod", "--mode", "700", "--path", "/etc/ld.so.conf"]);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(seen(), before);
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 3"]
fn a_container_of_runc_gets_its_libraries_into_the_cache() {
    let bundle = Bundle::new();
    let hook = |arguments: &[&str]| {
        let words = [&["nvidia-cdi-hook"], arguments].concat();
        json!({"path": hook_binary(), "args": words})
    };
    let hooks = json!({"createContainer": [
        hook(&["create-symlinks", "--link", "gpu/libz.so.1::/usr/lib/libmade.so"]),
        hook(&["enable-cuda-compat", "--host-driver-version=580.95.05"]),
        hook(&["update-ldcache", "--folder", "/usr/lib/gpu"]),
        hook(&["disable-device-node-modification"]),
    ]});
    bundle.write(&config(&["PATH=/bin"], &hooks));
    for _ in 0..2 {
        let mut command = Command::new(runc());
        command
            .arg("--root")
            .arg(bundle.path().join("runc"))
            .arg("run")
            .arg("--bundle")
            .arg(bundle.path())
            .arg("pitcrew-hook-test");
        assert_eq!(run(command, "").ok(), "/usr/lib/gpu\n");
        assert!(
            bundle.cache().contains("=> /usr/lib/gpu/lib"),
            "{}",
            bundle.cache()
        );
        assert!(
            fs::symlink_metadata(bundle.root().join("usr/lib/libmade.so"))
                .unwrap()
                .is_symlink()
        );
    }
}

/// The wrapper beside settings of its own, with a runtime that only ends.
fn wrapper(dir: &Path, settings: &Value) -> PathBuf {
    let path = dir.join("nvidia-container-runtime");
    fs::copy(hook_binary(), &path).unwrap();
    fs::write(dir.join("pitcrew-hook.json"), settings.to_string()).unwrap();
    path
}

fn create(wrapper: &Path, bundle: &Bundle, log: &Path) -> Outcome {
    let mut command = Command::new(wrapper);
    command
        .arg("--log")
        .arg(log)
        .args(["--log-format", "json", "create", "--bundle"])
        .arg(bundle.path())
        .arg("x");
    run(command, "")
}

#[test]
#[ignore = "needs the static binary: cargo xtask test --ring 3"]
fn the_wrapper_gives_what_was_granted_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let specs = dir.path().join("cdi");
    fs::create_dir(&specs).unwrap();
    let spec = json!({"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [
        {"name": "0", "containerEdits": {"env": ["GPU=0"], "deviceNodes": [{"path": "/dev/nvidia0", "hostPath": "/dev/null"}]}},
    ]});
    fs::write(specs.join("nvidia.yaml"), spec.to_string()).unwrap();
    let wrapper = wrapper(
        dir.path(),
        &json!({"specDirs": [specs], "runtimes": ["/bin/true"]}),
    );
    let log = dir.path().join("log.json");

    let bundle = Bundle::new();
    let asks = config(&["NVIDIA_VISIBLE_DEVICES=0"], &json!({}));
    bundle.write(&asks);
    create(&wrapper, &bundle, &log).ok();
    assert_eq!(
        bundle.read(),
        asks,
        "an unprivileged container named a GPU by its environment"
    );

    let mut granted = asks.clone();
    granted["annotations"] = json!({"cdi.k8s.io/nvidia-device-plugin_x": "nvidia.com/gpu=0"});
    bundle.write(&granted);
    create(&wrapper, &bundle, &log).ok();
    let given = bundle.read();
    assert_eq!(given["linux"]["devices"][0]["path"], "/dev/nvidia0");
    assert_eq!(
        given["process"]["env"],
        json!(["NVIDIA_VISIBLE_DEVICES=0", "GPU=0"])
    );
    create(&wrapper, &bundle, &log).ok();
    assert_eq!(bundle.read(), given, "the second time changes nothing");

    granted["annotations"] = json!({"cdi.k8s.io/x": "nvidia.com/gpu=9"});
    bundle.write(&granted);
    fs::remove_file(&log).unwrap();
    create(&wrapper, &bundle, &log).refused();
    let line: Value = serde_json::from_str(fs::read_to_string(&log).unwrap().trim()).unwrap();
    assert_eq!(line["level"], "error");
    assert!(
        line["msg"]
            .as_str()
            .unwrap()
            .contains("has the device nvidia.com/gpu=9"),
        "{line}"
    );
}

/// What an uninstalled agent leaves.
#[test]
#[ignore = "needs the static binary: cargo xtask test --ring 3"]
fn the_wrapper_as_a_pass_through_only_becomes_the_runtime() {
    let dir = tempfile::tempdir().unwrap();
    let wrapper = wrapper(
        dir.path(),
        &json!({"passThrough": true, "runtimes": ["/bin/true"]}),
    );
    let bundle = Bundle::new();
    let mut asks = config(&["PATH=/bin"], &json!({}));
    asks["annotations"] = json!({"cdi.k8s.io/x": "nvidia.com/gpu=9"});
    bundle.write(&asks);
    create(&wrapper, &bundle, &dir.path().join("log")).ok();
    assert_eq!(bundle.read(), asks);
}

/// Fails where the wrapper adds 3 ms or more to a runtime that ends at once; prints the figures.
#[test]
#[ignore = "needs the static binary: cargo xtask test --ring 3"]
#[expect(clippy::print_stdout, reason = "the figures are what one runs it for")]
fn the_wrapper_adds_less_than_3_ms() {
    let dir = tempfile::tempdir().unwrap();
    let wrapper = wrapper(dir.path(), &json!({"runtimes": ["/bin/true"]}));
    let bundle = Bundle::new();
    bundle.write(&config(&["PATH=/bin"], &json!({})));
    let log = dir.path().join("log");
    let median = |program: &Path| {
        let mut times: Vec<Duration> = (0..50)
            .map(|_| {
                let begin = Instant::now();
                create(program, &bundle, &log).ok();
                begin.elapsed()
            })
            .collect();
        times.sort();
        times[25]
    };
    let (without, with) = (median(Path::new("/bin/true")), median(&wrapper));
    println!("median of 50: {without:?} without, {with:?} with the wrapper");
    assert!(
        with.saturating_sub(without) < Duration::from_millis(3),
        "{without:?} without, {with:?} with"
    );
}
