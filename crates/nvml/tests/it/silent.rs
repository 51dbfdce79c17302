//! A call about one GPU that does not return.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pitcrew_core::Inventory;
use pitcrew_core::gpu::GpuReadings;
use pitcrew_core::inventory::Silent;
use pitcrew_core::ports::{GpuError, InventorySource as _, Sampling as _};
use pitcrew_nvml::relay::MOST;
use pitcrew_nvml::{Nvml, Patience, Places, Relay, Stuck};

use crate::library::{Built, build};

const CALL: Duration = Duration::from_millis(200);
const PATIENCE: Patience = Patience {
    whole: Duration::from_secs(20),
    call: CALL,
};
const GPU1: &str = "GPU-00000000-0000-4000-8000-000000000001";
const NOT_RETURNED: &str = "`nvmlDeviceGetTemperature` did not return within 0.2 s";

/// A driver whose calls hang while a file is there, and who asks it.
struct Bench {
    hangs: PathBuf,
    relay: Relay<Nvml>,
    _built: Built,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new(name: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let hangs = dir.path().join("hangs");
        fs::create_dir(&hangs).unwrap();
        let built = build(&[&format!("HANGS_IN=\"{}\"", hangs.display())]);
        let (file, places) = (built.file.clone(), Places::default());
        let relay = Relay::start(name, move |_| {
            Nvml::load(Some(&file), &[]).unwrap().with_places(places.clone())
        });
        Self {
            hangs,
            relay: relay.unwrap(),
            _built: built,
            _dir: dir,
        }
    }

    fn hang(&self, what: &str) {
        fs::write(self.hangs.join(what), "").unwrap();
    }

    fn release(&self, what: &str) {
        fs::remove_file(self.hangs.join(what)).unwrap();
    }

    fn look(&self) -> Result<Inventory, Stuck> {
        let look = |nvml: &mut Nvml, silent: &[Silent]| {
            nvml.set_silent(silent);
            nvml.inventory()
        };
        Ok(self.relay.ask("read the GPUs", PATIENCE, look)?.unwrap())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // No thread is left behind that hangs.
        let _ = fs::remove_dir_all(&self.hangs);
    }
}

/// Threads of this process that have this name.
fn threads(name: &str) -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let named = |path: &Path| fs::read_to_string(path).is_ok_and(|found| found.trim() == name);
    tasks.filter(|task| named(&task.path().join("comm"))).count()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_gpu_at_which_a_call_hangs_is_named_and_the_other_is_read() {
    let bench = Bench::new("silent-named");
    let before = bench.look().unwrap();
    assert_eq!(before.silent, []);
    bench.hang("1");
    let inventory = bench.look().unwrap();
    let silent = Silent {
        index: 1,
        reason: NOT_RETURNED.to_owned(),
    };
    assert_eq!(inventory.silent, [silent]);
    assert_eq!(inventory.gpus[0], before.gpus[0]);
    assert_eq!(inventory.gpus[1].pci, before.gpus[1].pci, "it is where it was");
    assert_eq!(inventory.gpus[1].readings, GpuReadings::all_failed(NOT_RETURNED));

    assert_eq!(bench.look().unwrap(), inventory, "the reason stays the same");
    assert_eq!(threads("silent-named"), 2, "and it is not asked again");
    let asked = bench
        .relay
        .call("read field values", CALL, |nvml| nvml.fields(GPU1, &[]));
    let error = asked.unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("GPU `{GPU1}` does not answer: {NOT_RETURNED}")
    );

    bench.release("1");
    until("the call returns", || bench.relay.silent().is_empty());
    assert_eq!(bench.look().unwrap(), before);
    until("one thread is left", || threads("silent-named") == 1);
}

#[test]
fn events_of_the_others_are_heard_while_a_gpu_is_silent() {
    let bench = Bench::new("silent-events");
    bench.hang("1");
    bench.look().unwrap();
    let heard = bench.relay.call("listen", CALL * 20, |nvml| {
        let events = nvml.events()?;
        let gpus: Vec<String> = events.gpus().map(ToOwned::to_owned).collect();
        Ok::<_, GpuError>(gpus)
    });
    let heard: BTreeSet<String> = heard.unwrap().unwrap().into_iter().collect();
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert!(!heard.contains(GPU1));
}

#[test]
fn where_all_calls_wait_for_one_that_hangs_the_driver_is_silent_and_says_so() {
    let bench = Bench::new("silent-lock");
    bench.look().unwrap();
    // As with a lock that all calls need: the second thread hangs at the first thing that it asks.
    bench.hang("1");
    bench.hang("driver");
    let stuck = bench.look().unwrap_err();
    assert!(
        stuck
            .reason()
            .starts_with("`nvmlDeviceGetCount_v2` has not returned"),
        "{stuck}"
    );
    for _ in 0..5 {
        bench.look().unwrap_err();
    }
    assert!(threads("silent-lock") <= MOST + 1);
    bench.release("driver");
    bench.release("1");
    until("it answers again", || {
        bench.look().is_ok_and(|inventory| inventory.silent.is_empty())
    });
    until("one thread is left", || threads("silent-lock") == 1);
}

#[test]
fn a_driver_that_hangs_as_a_whole_needs_no_second_thread() {
    let bench = Bench::new("silent-whole");
    bench.look().unwrap();
    bench.hang("driver");
    bench.look().unwrap_err();
    let start = Instant::now();
    bench.look().unwrap_err();
    assert!(start.elapsed() < PATIENCE.whole / 2, "it is known to hang");
    assert_eq!(threads("silent-whole"), 1);
    bench.release("driver");
    until("it answers again", || bench.look().is_ok());
}
