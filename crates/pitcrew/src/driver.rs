//! What gives the GPUs: this machine's driver, or a scenario. Either runs on a thread of its own, so that a driver
//! that hangs never hangs a command.

use std::time::Duration;

use pitcrew_cli::GlobalArgs;
use pitcrew_core::inventory::Silent;
use pitcrew_core::nvlink::NvLink;
use pitcrew_core::ports::{GpuError, Sampling};
use pitcrew_core::{Inventory, Reading};
use pitcrew_nvml::{Patience, Progress, Relay, Stuck};

use crate::error::Error;
use crate::pci;
use crate::view::report::Source;

#[cfg(feature = "sim")]
pub(crate) mod imaginary;
#[cfg(not(feature = "sim"))]
#[path = "driver/no_simulator.rs"]
mod imaginary;
pub(crate) mod listener;
pub(crate) mod real;

use imaginary::Imaginary;
use real::{Known, Real};

/// How long the driver may take to answer, and how long for each of many GPUs: a cold driver without persistence mode
/// takes seconds to start one.
const DEADLINE: Duration = Duration::from_secs(10);
const FOR_EACH: Duration = Duration::from_secs(3);
/// How long one call of it may take: what takes longer hangs. To start one GPU takes a second or three.
const CALL: Duration = Duration::from_secs(10);
/// How long it may take to give back what it holds.
const RELEASE: Duration = Duration::from_secs(4);

/// How long this machine's driver may take to answer, or a scenario's.
pub(crate) fn deadline(global: &GlobalArgs, scenario: Option<&str>) -> Duration {
    let gpus = match scenario {
        Some(_) => 0,
        None => pci::scan(&global.root).map_or(0, |functions| functions.len()),
    };
    DEADLINE.max(FOR_EACH * u32::try_from(gpus).unwrap_or(0))
}

/// One look at all GPUs.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Where it comes from.
    pub(crate) source: Source,
    /// The GPUs.
    pub(crate) inventory: Inventory,
}

/// What is asked, on its own thread.
#[derive(Debug)]
pub(crate) enum Driver {
    /// This machine's.
    Real(Box<Real>),
    /// A scenario's.
    Imaginary(Imaginary),
}

impl Driver {
    /// Loads the driver where it isn't, or has been replaced, and reads everything once, but for GPUs that are silent.
    fn look(&mut self, silent: &[Silent]) -> Result<Seen, Error> {
        match self {
            Self::Real(real) => real.look(silent),
            Self::Imaginary(imaginary) => imaginary.look(),
        }
    }
}

impl Sampling for Driver {
    fn fields(&mut self, uuid: &str, names: &[&str]) -> Result<Vec<Reading<u64>>, GpuError> {
        match self {
            Self::Real(real) => real.fields(uuid, names),
            Self::Imaginary(imaginary) => imaginary.fields(uuid, names),
        }
    }

    fn nvlinks(&mut self, uuid: &str) -> Result<Vec<NvLink>, GpuError> {
        match self {
            Self::Real(real) => real.nvlinks(uuid),
            Self::Imaginary(imaginary) => imaginary.nvlinks(uuid),
        }
    }

    fn profiling(&mut self, uuid: &str, metrics: &[u32]) -> Result<Vec<Reading<f64>>, GpuError> {
        match self {
            Self::Real(real) => real.profiling(uuid, metrics),
            Self::Imaginary(imaginary) => imaginary.profiling(uuid, metrics),
        }
    }
}

/// A driver that can be asked.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The threads.
    relay: Relay<Driver>,
    /// What all threads know.
    known: Known,
    /// How long it may take to answer.
    deadline: Duration,
    /// How long one call may take.
    longest_call: Duration,
}

impl Opened {
    /// Reads everything once, within [`deadline`]. To be called again and again: a driver that was replaced is loaded
    /// anew, one that didn't answer is asked from the beginning, and a GPU at which a call hangs is left out until the
    /// call returns.
    pub(crate) fn look(&self) -> Result<Seen, Error> {
        self.look_within(self.deadline).map_err(GpuError::from)?
    }

    /// [`Self::look`] with a deadline of the caller's, for who tells a driver that is silent from one that refuses.
    pub(crate) fn look_within(&self, deadline: Duration) -> Result<Result<Seen, Error>, Stuck> {
        let patience = Patience {
            whole: deadline,
            call: self.longest_call,
        };
        self.relay.ask("read the GPUs", patience, Driver::look)
    }

    /// The `NVLinks` of one GPU, one by one.
    pub(crate) fn nvlinks(&self, uuid: &str, deadline: Duration) -> Result<Vec<NvLink>, GpuError> {
        let patience = Patience {
            whole: deadline,
            call: self.longest_call,
        };
        let uuid = uuid.to_owned();
        self.relay.ask(
            "read the NVLinks",
            patience,
            move |driver: &mut Driver, _: &[Silent]| driver.nvlinks(&uuid),
        )?
    }

    /// From the next look on, whoever this is is told of every event when it happens. A scenario has none by itself.
    pub(crate) fn tell(&self, tell: listener::Tell) {
        self.known.tell(tell);
    }

    /// Gives back every descriptor and mapping of the driver. The next look loads it again.
    ///
    /// Fails where a call hangs: the library can't be unloaded under it, nor may the descriptors that it works on be
    /// closed. What can be given back is.
    pub(crate) fn release(&self) -> Result<(), GpuError> {
        let release = |driver: &mut Driver| {
            if let Driver::Real(real) = driver {
                real.release();
            }
        };
        self.relay.call("let go of the driver", RELEASE, release)?;
        match self.relay.silent().first() {
            None => Ok(()),
            Some(Silent { index, reason }) => {
                Err(GpuError::DriverSilent(format!("{reason}, of GPU {index}")))
            }
        }
    }

    /// Has every look from the next one on tell the XIDs that were heard of since. A scenario tells them anyway.
    pub(crate) fn listen(&self) {
        self.known.listen();
    }
}

/// Opens the scenario, or without one this machine's driver. The driver itself is first touched by
/// [`Opened::look`], which fails where there is none.
pub(crate) fn open(global: &GlobalArgs, scenario: Option<&str>) -> Result<Opened, Error> {
    let known = Known::default();
    let relay = if let Some(name) = scenario {
        let imaginary = Imaginary::open(name)?;
        Relay::start("nvml", move |_| Driver::Imaginary(imaginary.clone()))
    } else {
        let (global, known) = (global.clone(), known.clone());
        let make =
            move |progress: &Progress| Driver::Real(Box::new(Real::new(&global, known.clone(), progress)));
        Relay::start("nvml", make)
    };
    Ok(Opened {
        relay: relay.map_err(Error::NoThread)?,
        known,
        deadline: deadline(global, scenario),
        longest_call: CALL,
    })
}

/// True when this machine has GPUs to ask about: on its PCI bus, or behind a library that was named.
pub(crate) fn is_to_be_asked(global: &GlobalArgs) -> Result<bool, Error> {
    Ok(global.nvml.is_some() || !pci::scan(&global.root)?.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use pitcrew_cli::{ColorChoice, Format};

    /// A library of the tests of `pitcrew-nvml`, in place of the one that is there, as a package manager does it.
    fn install(dir: &Path, macros: &[&str]) -> PathBuf {
        let (new, file) = (dir.join("new"), dir.join("libnvidia-ml.so.1"));
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&new)
            .args(macros.iter().map(|name| format!("-D{name}")))
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../nvml/tests/it/broken.c"));
        assert!(cc.status().unwrap().success(), "cc failed");
        std::fs::rename(new, &file).unwrap();
        file
    }

    fn machine(dir: &Path) -> GlobalArgs {
        GlobalArgs {
            output: Format::Table,
            color: ColorChoice::Never,
            quiet: false,
            root: dir.to_owned(),
            nvml: Some(dir.join("libnvidia-ml.so.1")),
            width: None,
        }
    }

    fn version(opened: &Opened) -> Option<String> {
        opened.look().ok()?.inventory.driver.version.value().cloned()
    }

    /// True when this process has the file open.
    fn holds(file: &Path) -> bool {
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
        descriptors
            .flatten()
            .any(|entry| std::fs::read_link(entry.path()).is_ok_and(|target| target == file))
    }

    #[test]
    fn a_driver_may_take_its_time_for_every_gpu() {
        let dir = tempfile::tempdir().unwrap();
        let machine = machine(dir.path());
        assert_eq!(deadline(&machine, None), DEADLINE);
        for bus in 1..=8 {
            let function = dir.path().join(format!("sys/bus/pci/devices/0000:0{bus}:00.0"));
            std::fs::create_dir_all(&function).unwrap();
            for (file, text) in [
                ("vendor", "0x10de"),
                ("device", "0x2330"),
                ("class", "0x030200"),
                ("subsystem_vendor", "0x10de"),
                ("subsystem_device", "0x16c1"),
            ] {
                std::fs::write(function.join(file), text).unwrap();
            }
        }
        assert_eq!(deadline(&machine, None), FOR_EACH * 8);
        assert_eq!(deadline(&machine, Some("h100x8")), DEADLINE);
    }

    #[test]
    fn a_driver_that_is_replaced_between_two_looks_is_loaded_anew() {
        let dir = tempfile::tempdir().unwrap();
        let opened = open(&machine(dir.path()), None).unwrap();
        assert!(
            matches!(opened.look(), Err(Error::Gpus(GpuError::NoDriver(_)))),
            "it is not there yet"
        );
        install(dir.path(), &[]);
        opened.listen();
        assert_eq!(version(&opened).as_deref(), Some("580.159.04"));
        install(dir.path(), &["VERSION=\"590.48.01\""]);
        assert_eq!(version(&opened).as_deref(), Some("590.48.01"));
    }

    #[test]
    fn a_driver_that_has_broken_is_let_go_of_until_it_works_again() {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("nvidiactl");
        std::fs::write(&device, "").unwrap();
        let device_macro = format!("DEVICE=\"{}\"", device.display());
        install(dir.path(), &[&device_macro]);
        let opened = open(&machine(dir.path()), None).unwrap();
        opened.look().unwrap();
        assert!(holds(&device));
        install(dir.path(), &["FAILS=18"]);
        assert!(matches!(
            opened.look(),
            Err(Error::Gpus(GpuError::DriverFailed(_)))
        ));
        assert!(!holds(&device), "or the driver could not be replaced");
        install(dir.path(), &[&device_macro]);
        opened.look().unwrap();
        drop(opened);
        assert!(!holds(&device));
    }

    #[test]
    fn who_listens_is_told_of_xids() {
        let dir = tempfile::tempdir().unwrap();
        install(dir.path(), &[]);
        let opened = open(&machine(dir.path()), None).unwrap();
        let xids = || opened.look().unwrap().inventory.gpus.remove(0).readings.xids;
        assert_eq!(xids(), Reading::NotSupported);
        opened.listen();
        assert_eq!(xids(), Reading::Value(vec![79, 43]));
    }

    #[derive(Debug)]
    struct Heard(std::sync::Mutex<std::sync::mpsc::Sender<pitcrew_core::ports::GpuEvent>>);

    impl listener::Told for Heard {
        fn tell(&self, event: pitcrew_core::ports::GpuEvent) {
            let _ = self.0.lock().unwrap().send(event);
        }
    }

    #[test]
    fn who_wants_to_be_told_hears_of_events_without_a_look_and_holds_nothing_once_the_driver_is_let_go_of() {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("nvidiactl");
        std::fs::write(&device, "").unwrap();
        install(dir.path(), &[&format!("DEVICE=\"{}\"", device.display())]);
        let opened = open(&machine(dir.path()), None).unwrap();
        let (sender, heard) = std::sync::mpsc::channel();
        let heard_by = || std::sync::Arc::new(Heard(std::sync::Mutex::new(sender.clone())));
        opened.tell(heard_by());
        opened.look().unwrap();
        let next = || heard.recv_timeout(Duration::from_secs(20)).unwrap().kind;
        let xids = [next(), next()];
        assert_eq!(xids, [79, 43].map(pitcrew_core::ports::GpuEventKind::Xid));
        assert!(holds(&device));
        opened.release().unwrap();
        assert!(!holds(&device), "or the driver could not be replaced");
        opened.look().unwrap();
        assert!(holds(&device), "the next look loads it again");
    }

    #[test]
    fn a_gpu_at_which_a_call_hangs_costs_the_others_nothing_and_keeps_the_driver_until_the_call_returns() {
        let dir = tempfile::tempdir().unwrap();
        let (device, hangs) = (dir.path().join("nvidiactl"), dir.path().join("hangs"));
        std::fs::write(&device, "").unwrap();
        std::fs::create_dir(&hangs).unwrap();
        let macros = [
            format!("DEVICE=\"{}\"", device.display()),
            format!("HANGS_IN=\"{}\"", hangs.display()),
        ];
        install(dir.path(), &macros.each_ref().map(String::as_str));
        let mut opened = open(&machine(dir.path()), None).unwrap();
        opened.longest_call = Duration::from_millis(500);
        let (sender, heard) = std::sync::mpsc::channel();
        opened.tell(std::sync::Arc::new(Heard(std::sync::Mutex::new(sender))));
        opened.look().unwrap();
        heard.recv_timeout(Duration::from_secs(20)).unwrap();

        std::fs::write(hangs.join("1"), "").unwrap();
        let inventory = opened.look().unwrap().inventory;
        let reason = "`nvmlDeviceGetTemperature` did not return within 0.5 s";
        assert_eq!((inventory.silence(0), inventory.silence(1)), (None, Some(reason)));
        assert!(inventory.gpus[0].readings.name.value().is_some());
        assert_eq!(
            opened.release().unwrap_err().to_string(),
            format!("the NVIDIA driver does not answer: {reason}, of GPU 1")
        );
        assert!(holds(&device), "who hangs in it holds it");

        std::fs::remove_file(hangs.join("1")).unwrap();
        let start = std::time::Instant::now();
        while opened.release().is_err() {
            assert!(start.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(!holds(&device), "all is given back");
        assert_eq!(opened.look().unwrap().inventory.silent, []);
    }
}
