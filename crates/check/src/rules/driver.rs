//! NVIDIA's kernel modules: loaded, bound to the cards, and answering.

use pitcrew_core::ports::GpuError;
use pitcrew_core::{Reading, health};
use pitcrew_host::facts::{PciGpu, Service};

use super::Rule;
use crate::node::{NoGpu, Node};
use crate::report::{Finding, Question, Topic, listed, question};

pub(crate) const RULES: &[Rule] = &[
    module,
    nouveau,
    bound,
    secure_boot,
    answers,
    health_of_gpus,
    persistence,
];

/// The check means nothing without a GPU that containers can use.
pub(super) fn without_gpu(ask: Question, no_gpu: &NoGpu) -> Vec<Finding> {
    vec![ask.not_applicable(no_gpu.words())]
}

/// Is the kernel module loaded?
fn module(node: &Node<'_>) -> Vec<Finding> {
    let ask = question(
        Topic::Driver,
        "driver.module",
        "kernel module",
        "/proc/modules, /proc/driver/nvidia/version",
    );
    let gpus = match node.usable() {
        Ok(gpus) => gpus,
        Err(no_gpu) => return without_gpu(ask, &no_gpu),
    };
    let driver = &node.host.driver;
    let finding = match (&driver.kernel_version, node.is_loaded("nvidia")) {
        (Reading::Value(version), _) => {
            let flavour = match driver.open_kernel_modules.value() {
                Some(true) => ", open kernel modules",
                Some(false) => ", proprietary kernel modules",
                None => "",
            };
            ask.ok(format!("{version}{flavour}"))
        }
        (Reading::Failed(reason), _) => ask.unknown(reason),
        (Reading::NotSupported, None) => ask.unknown("what is loaded can't be read"),
        (Reading::NotSupported, Some(true)) => ask
            .failure("loaded, and it says no version", "the module is loaded and did not start")
            .next("sudo dmesg | grep -i -e nvrm -e nvidia".to_owned()),
        (Reading::NotSupported, Some(false)) => match &driver.module_on_disk {
            Reading::Value(version) if nouveau_holds(&gpus) => ask
                .failure(
                    format!("{version} is installed, not loaded"),
                    "nouveau holds the GPU: see `nouveau`",
                )
                .next(node.advice.blacklist_nouveau())
                .care(node.advice.before_reboot()),
            Reading::Value(version) if node.host.system.secure_boot.value() == Some(&true) => {
                let cards: Vec<_> = gpus.iter().filter_map(|gpu| node.card(gpu)).collect();
                let (command, care) = node.advice.signed_module(&cards);
                ask.failure(
                    format!("{version} is installed, not loaded"),
                    "Secure Boot lets no unsigned module in: see `Secure Boot`",
                )
                .next(command)
                .care(care)
            }
            Reading::Value(version) => ask
                .failure(
                    format!("{version} is installed, not loaded"),
                    "no GPU works until the module is loaded; it is loaded at boot where the driver's package is whole",
                )
                .next("sudo modprobe nvidia && sudo dmesg | tail -20".to_owned()),
            // It may well be there: loading it tells, installing it anew does not help.
            Reading::Failed(reason) => ask
                .failure(
                    format!("not loaded; {reason}"),
                    "no GPU works until the module is loaded; it is loaded at boot where the driver's package is whole",
                )
                .next("sudo modprobe nvidia && sudo dmesg | tail -20".to_owned()),
            Reading::NotSupported => {
                let cards: Vec<_> = gpus.iter().filter_map(|gpu| node.card(gpu)).collect();
                let kernel = node.host.system.kernel.value().map_or_else(
                    || "the running kernel".to_owned(),
                    |kernel| format!("kernel {kernel}"),
                );
                ask.failure(
                    format!("none loaded, none installed for {kernel}"),
                    format!("without NVIDIA's driver no GPU works; {}", node.advice.driver_source()),
                )
                .next(node.advice.install_driver(&cards))
                .care(node.advice.before_reboot())
            }
        },
    };
    vec![finding]
}

fn is_nouveau(gpu: &PciGpu) -> bool {
    gpu.driver
        .value()
        .is_some_and(|driver| driver == "nouveau" || driver == "nova-core" || driver == "nova_core")
}

fn nouveau_holds(gpus: &[&PciGpu]) -> bool {
    gpus.iter().any(|gpu| is_nouveau(gpu))
}

/// Does the kernel's own driver hold a card, or may it at the next boot?
fn nouveau(node: &Node<'_>) -> Vec<Finding> {
    let ask = question(
        Topic::Driver,
        "driver.nouveau",
        "nouveau",
        "/proc/modules, modprobe.d, /proc/cmdline",
    );
    let gpus = match node.usable() {
        Ok(gpus) => gpus,
        Err(no_gpu) => return without_gpu(ask, &no_gpu),
    };
    let held: Vec<_> = gpus
        .iter()
        .filter(|gpu| is_nouveau(gpu))
        .map(|gpu| gpu.function.address)
        .collect();
    let blacklist = |finding: Finding| {
        finding
            .next(node.advice.blacklist_nouveau())
            .care(node.advice.before_reboot())
    };
    let is_loaded = node.is_loaded("nouveau").zip(node.is_loaded("nova_core"));
    let finding = match (is_loaded, &node.host.driver.nouveau_blacklisted) {
        _ if !held.is_empty() => blacklist(ask.failure(
            format!("holds {}", listed(held)),
            "nouveau took the GPU at boot, so NVIDIA's driver can't; it has to be kept out of the early boot image too",
        )),
        (Some((true, _) | (_, true)), Reading::Value(true)) => ask
            .warning(
                "loaded, although it is blacklisted",
                "the early boot image is older than the blacklist, or something loaded nouveau by hand",
            )
            .next("sudo modprobe -r nouveau".to_owned()),
        (Some((true, _) | (_, true)), _) => blacklist(ask.warning(
            "loaded, holds no GPU",
            "at the next boot it may take the GPU before NVIDIA's driver does",
        )),
        (Some(_), Reading::Value(true)) => ask.ok("not loaded, blacklisted"),
        (Some(_), Reading::Value(false)) if node.host.driver.kernel_version.value().is_some() => ask.note(
            "not loaded, not blacklisted",
            "NVIDIA's driver won this time; a blacklist makes that sure (`blacklist nouveau` in /etc/modprobe.d)",
        ),
        (Some(_), Reading::Value(false)) => ask.note(
            "not loaded, not blacklisted",
            "NVIDIA's packages blacklist it when they are installed",
        ),
        (Some(_), Reading::NotSupported) => ask.ok("not loaded"),
        (Some(_), Reading::Failed(reason)) => ask.unknown(reason).minor(),
        (None, _) => ask.unknown("what is loaded can't be read").minor(),
    };
    vec![finding]
}

/// Did the driver take every card?
fn bound(node: &Node<'_>) -> Vec<Finding> {
    let ask = question(
        Topic::Driver,
        "driver.bound",
        "bound to the GPUs",
        "/sys/bus/pci/devices/*/driver",
    );
    let gpus = match node.usable() {
        Ok(gpus) => gpus,
        Err(no_gpu) => return without_gpu(ask, &no_gpu),
    };
    if node.host.driver.kernel_version.is_absent() {
        return vec![ask.not_applicable("no driver is loaded")];
    }
    let mut unread = None;
    let mut others = Vec::new();
    for gpu in &gpus {
        match &gpu.driver {
            Reading::Value(driver) if driver == "nvidia" => {}
            Reading::Value(driver) => others.push(format!("{} has {driver}", gpu.function.address)),
            Reading::NotSupported => others.push(format!("{} has none", gpu.function.address)),
            Reading::Failed(reason) => unread = Some(reason),
        }
    }
    let finding = if !others.is_empty() {
        ask.failure(
            listed(others),
            "the driver is loaded and did not take this GPU: it doesn't know the card, or the card did not start",
        )
        .next("sudo dmesg | grep -i -e nvrm -e 'nvidia '".to_owned())
    } else if let Some(reason) = unread {
        ask.unknown(reason).minor()
    } else {
        ask.ok(match gpus.len() {
            1 => "nvidia has it".to_owned(),
            count => format!("nvidia has all {count}"),
        })
    };
    vec![finding]
}

/// A module whose version can't be told is there all the same.
fn has_module_on_disk(node: &Node<'_>) -> bool {
    !matches!(node.host.driver.module_on_disk, Reading::NotSupported)
}

/// Does the firmware let the module in?
fn secure_boot(node: &Node<'_>) -> Vec<Finding> {
    let ask = question(
        Topic::Driver,
        "driver.secure-boot",
        "Secure Boot",
        "EFI variable SecureBoot, /sys/kernel/security/lockdown",
    );
    let system = &node.host.system;
    let is_locked = system.lockdown.value().is_some_and(|lockdown| lockdown != "none");
    let finding = match &system.secure_boot {
        Reading::Failed(reason) => ask.unknown(reason).minor(),
        Reading::NotSupported if is_locked => {
            ask.note("no EFI; the kernel is locked down", "a locked kernel loads signed modules only")
        }
        Reading::NotSupported => ask.ok("no EFI: modules need no signature"),
        Reading::Value(false) => ask.ok("off: modules need no signature"),
        Reading::Value(true) => match (node.usable(), node.is_loaded("nvidia")) {
            (Err(no_gpu), _) => return without_gpu(ask, &no_gpu),
            (Ok(_), Some(true)) => ask.ok("on, and the module's signature was accepted"),
            (Ok(gpus), _) if has_module_on_disk(node) && !nouveau_holds(&gpus) => {
                let cards: Vec<_> = gpus.iter().filter_map(|gpu| node.card(gpu)).collect();
                let (command, care) = node.advice.signed_module(&cards);
                ask.failure(
                    "on, and the installed module is not loaded",
                    "with Secure Boot the kernel refuses a module whose signer it does not know (`Key was rejected by \
                     service`)",
                )
                .next(command)
                .care(care)
            }
            (Ok(_), _) => ask.note(
                "on",
                "the kernel will load a signed module only: take the distribution's signed packages, or enrol the \
                 key of the module with mokutil",
            ),
        },
    };
    vec![finding]
}

/// Does the driver answer, for every card?
fn answers(node: &Node<'_>) -> Vec<Finding> {
    let ask = question(Topic::Driver, "driver.answers", "driver answers", "NVML");
    let gpus = match node.usable() {
        Ok(gpus) => gpus,
        Err(no_gpu) => return without_gpu(ask, &no_gpu),
    };
    let dmesg = "sudo dmesg | grep -i -e nvrm -e xid".to_owned();
    let finding = match node.gpus {
        Ok(inventory) => {
            let missing: Vec<_> = gpus
                .iter()
                .filter(|gpu| node.reading(gpu).is_none())
                .map(|gpu| gpu.function.address)
                .collect();
            if missing.is_empty() {
                let cuda = inventory.driver.cuda.value();
                let cuda = cuda.map_or_else(String::new, |cuda| format!(", CUDA {cuda}"));
                ask.ok(match gpus.len() {
                    1 => format!("1 GPU{cuda}"),
                    count => format!("{count} GPUs{cuda}"),
                })
            } else {
                ask.failure(
                    format!("knows nothing of {}", listed(missing)),
                    "the GPU is on the bus and the driver does not list it: it did not start, or it was excluded",
                )
                .next(dmesg)
            }
        }
        Err(GpuError::NoDriver(_)) if node.host.driver.kernel_version.is_absent() => {
            ask.not_applicable("no driver is loaded")
        }
        Err(GpuError::NoDriver(reason)) => ask
            .unknown(format!("not asked: {reason}"))
            .why("the module is loaded, and its library can't be used from here")
            .next("ldconfig -p | grep libnvidia-ml".to_owned()),
        Err(error) if error.to_string().contains("mismatch") => ask
            .failure(
                error.to_string(),
                "the libraries are not of the version of the loaded module: see `libraries`",
            )
            .next("sudo reboot".to_owned())
            .care(node.advice.before_reboot()),
        Err(error) => ask
            .failure(
                error.to_string(),
                "what the driver does not answer here it does not answer in a container either",
            )
            .next(dmesg),
    };
    vec![finding]
}

/// Is every card well?
fn health_of_gpus(node: &Node<'_>) -> Vec<Finding> {
    let Ok(inventory) = node.gpus else {
        return Vec::new();
    };
    if inventory.gpus.is_empty() {
        return Vec::new();
    }
    let ask = question(Topic::Driver, "driver.health", "health of the GPUs", "NVML");
    let sick: Vec<_> = inventory
        .gpus
        .iter()
        .map(|gpu| (gpu.index, health::assess(gpu)))
        .filter(|(_, health)| health.verdict != health::Verdict::Healthy)
        .collect();
    let Some((_, first)) = sick.first() else {
        return vec![ask.ok("all healthy")];
    };
    let found = listed(
        sick.iter()
            .map(|(index, health)| format!("GPU {index} {}", health.verdict)),
    );
    let why = first
        .findings
        .first()
        .map_or_else(|| "see each GPU's own report".to_owned(), |it| it.what.clone());
    let worst = sick.iter().map(|(_, health)| health.verdict).min();
    let finding = if worst == Some(health::Verdict::Unhealthy) {
        ask.failure(found, why)
    } else {
        ask.warning(found, why)
    };
    vec![finding.next("pitcrew gpus".to_owned())]
}

/// Does the driver stay awake without clients?
fn persistence(node: &Node<'_>) -> Vec<Finding> {
    let ask = question(
        Topic::Driver,
        "driver.persistence",
        "persistence",
        "nvidia-persistenced.service, NVML",
    );
    if let Err(no_gpu) = node.usable() {
        return without_gpu(ask, &no_gpu);
    }
    if node.host.driver.kernel_version.is_absent() {
        return vec![ask.not_applicable("no driver is loaded")];
    }
    let modes: Vec<bool> = node
        .gpus
        .map(|inventory| inventory.gpus.iter())
        .into_iter()
        .flatten()
        .filter_map(|gpu| gpu.readings.persistence.value().copied())
        .collect();
    let is_on = !modes.is_empty() && modes.iter().all(|&on| on);
    let service = node.host.services.persistenced;
    let finding = match (service, is_on) {
        (Service::Running, _) => ask.ok("nvidia-persistenced runs"),
        (Service::Enabled, true) => ask.ok("nvidia-persistenced is enabled, persistence mode is on"),
        (_, true) => ask.note(
            "persistence mode is on, no daemon at boot",
            "the mode is gone after a reboot; nvidia-persistenced sets it again",
        ),
        (Service::Enabled, false) => ask.note(
            "nvidia-persistenced is enabled; whether it runs can't be seen",
            "without it the driver starts the GPU anew for every first client, which takes seconds",
        ),
        (Service::Installed, false) => ask
            .warning(
                "nvidia-persistenced is installed and not enabled",
                "without it the driver starts the GPU anew for every first client, which takes seconds",
            )
            .next("sudo systemctl enable --now nvidia-persistenced".to_owned()),
        (Service::Absent, false) => ask
            .note(
                "neither nvidia-persistenced nor persistence mode",
                "without clients the driver lets the GPU go, and the next container waits seconds for it",
            )
            .next("sudo nvidia-smi -pm 1".to_owned()),
    };
    vec![finding]
}

#[cfg(test)]
mod tests {
    use pitcrew_core::ports::InventorySource;
    use pitcrew_scenario::{Machine, Scenario};

    use super::*;
    use crate::check;
    use crate::report::Verdict;
    use crate::rules::one;
    use crate::sample::{self, gpu, held_by, text};

    #[test]
    fn without_a_driver_the_command_installs_one_that_knows_the_card() {
        let finding = one(&sample::host().no_driver().build(), "driver.module");
        assert_eq!(
            finding.found,
            "none loaded, none installed for kernel 6.8.0-45-generic"
        );
        assert_eq!(
            finding.next.unwrap(),
            "sudo apt install nvidia-driver-580-server-open && sudo reboot"
        );
        assert!(finding.care.is_some());
        let v100 = sample::host().gpus(vec![gpu("0000:01:00.0", 0x1db6)]).no_driver();
        let next = one(&v100.build(), "driver.module").next.unwrap();
        assert_eq!(next, "sudo apt install nvidia-driver-580-server && sudo reboot");
    }

    #[test]
    fn persistence_is_the_daemon_or_the_mode_and_the_mode_alone_is_gone_at_boot() {
        let of = |service, mode| {
            let host = sample::host().with(|host| host.services.persistenced = service);
            let mut gpus = Machine::new(Scenario::builtin("rtx3060").unwrap())
                .inventory()
                .unwrap();
            gpus.gpus[0].readings.persistence = Reading::Value(mode);
            let report = check(&host.build(), Ok(&gpus));
            let finding = report.finding("driver.persistence").unwrap();
            (finding.verdict, finding.next.clone())
        };
        let enable = Some("sudo systemctl enable --now nvidia-persistenced".to_owned());
        assert_eq!(of(Service::Running, false), (Verdict::Ok, None));
        assert_eq!(of(Service::Enabled, true), (Verdict::Ok, None));
        assert_eq!(of(Service::Enabled, false), (Verdict::Note, None));
        assert_eq!(of(Service::Absent, true), (Verdict::Note, None));
        assert_eq!(of(Service::Installed, false), (Verdict::Warning, enable));
        assert_eq!(of(Service::Absent, false).0, Verdict::Note);
    }

    #[test]
    fn a_degraded_gpu_is_a_warning_and_an_unhealthy_one_a_failure() {
        let of = |change: fn(&mut pitcrew_core::gpu::GpuReadings)| {
            let mut gpus = Machine::new(Scenario::builtin("h200").unwrap())
                .inventory()
                .unwrap();
            change(&mut gpus.gpus[0].readings);
            let report = check(&sample::host().build(), Ok(&gpus));
            let finding = report.finding("driver.health").unwrap();
            (finding.verdict, finding.found.clone())
        };
        assert_eq!(of(|_| {}), (Verdict::Ok, "all healthy".to_owned()));
        let degraded = of(|readings| readings.xids = Reading::Value(vec![63]));
        assert_eq!(degraded, (Verdict::Warning, "GPU 0 degraded".to_owned()));
        let lost = of(|readings| readings.xids = Reading::Value(vec![79]));
        assert_eq!(lost, (Verdict::Failure, "GPU 0 unhealthy".to_owned()));
    }

    #[test]
    fn a_driver_on_disk_is_loaded_and_not_installed_again() {
        let host = sample::host()
            .no_driver()
            .with(|host| host.driver.module_on_disk = text("580.159.04"));
        let finding = one(&host.build(), "driver.module");
        assert_eq!(finding.found, "580.159.04 is installed, not loaded");
        assert!(finding.next.unwrap().starts_with("sudo modprobe nvidia"));
    }

    #[test]
    fn nouveau_on_a_card_is_a_failure_and_loaded_without_one_a_warning() {
        let held = held_by(gpu("0000:01:00.0", 0x2503), "nouveau");
        let host = sample::host().no_driver().gpus(vec![held]).with(|host| {
            host.driver.loaded_modules = Reading::Value(vec!["nouveau".to_owned()]);
            host.driver.nouveau_blacklisted = Reading::Value(false);
        });
        let finding = one(&host.build(), "driver.nouveau");
        assert_eq!(finding.verdict, Verdict::Failure);
        assert!(
            finding
                .next
                .unwrap()
                .contains("update-initramfs -u && sudo reboot")
        );
        let loaded = |blacklisted| {
            let host = sample::host().with(|host| {
                host.driver.loaded_modules = Reading::Value(vec!["nvidia".to_owned(), "nouveau".to_owned()]);
                host.driver.nouveau_blacklisted = Reading::Value(blacklisted);
            });
            one(&host.build(), "driver.nouveau").verdict
        };
        assert_eq!(loaded(true), Verdict::Warning);
        assert_eq!(loaded(false), Verdict::Warning);
        assert_eq!(
            one(&sample::host().build(), "driver.nouveau").verdict,
            Verdict::Ok
        );
    }

    #[test]
    fn secure_boot_fails_only_where_an_installed_module_was_kept_out() {
        let on = |host: sample::Sample| host.with(|host| host.system.secure_boot = Reading::Value(true));
        assert_eq!(
            one(&on(sample::host()).build(), "driver.secure-boot").verdict,
            Verdict::Ok
        );
        let absent = on(sample::host().no_driver()).build();
        assert_eq!(one(&absent, "driver.secure-boot").verdict, Verdict::Note);
        let refused = on(sample::host().no_driver())
            .os("rocky", "9.4")
            .with(|host| host.driver.module_on_disk = text("580.159.04"));
        let finding = one(&refused.build(), "driver.secure-boot");
        assert_eq!(finding.verdict, Verdict::Failure);
        assert_eq!(
            finding.next.unwrap(),
            "sudo mokutil --import /var/lib/dkms/mok.pub && sudo reboot"
        );
    }

    #[test]
    fn a_card_that_the_driver_does_not_list_is_a_failure() {
        let inventory = Machine::new(Scenario::builtin("rtx3060").unwrap())
            .inventory()
            .unwrap();
        let verdict = |host: &pitcrew_host::Host| {
            check(host, Ok(&inventory))
                .finding("driver.answers")
                .unwrap()
                .clone()
        };
        let one_gpu = verdict(&sample::host().build());
        assert_eq!(
            (one_gpu.verdict, one_gpu.found.as_str()),
            (Verdict::Ok, "1 GPU, CUDA 13.0")
        );
        let two = sample::host().gpus(vec![gpu("0000:01:00.0", 0x2503), gpu("0000:02:00.0", 0x2503)]);
        let two = verdict(&two.build());
        assert_eq!(
            (two.verdict, two.found.as_str()),
            (Verdict::Failure, "knows nothing of 0000:02:00.0")
        );
    }

    #[test]
    fn a_driver_that_refuses_is_quoted() {
        let refused = GpuError::DriverFailed("Driver/library version mismatch".to_owned());
        let report = check(&sample::host().build(), Err(&refused));
        let finding = report.finding("driver.answers").unwrap();
        assert_eq!(finding.verdict, Verdict::Failure);
        assert!(finding.found.ends_with("Driver/library version mismatch"));
    }

    #[test]
    fn a_driver_that_lost_a_card_is_a_failure() {
        let host = sample::host().gpus(vec![held_by(gpu("0000:01:00.0", 0x2503), "snd_hda_intel")]);
        let finding = one(&host.build(), "driver.bound");
        assert_eq!(finding.found, "0000:01:00.0 has snd_hda_intel");
        assert_eq!(finding.verdict, Verdict::Failure);
    }
}
