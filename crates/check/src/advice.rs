//! The next command, for this operating system and this distribution.
//!
//! Nothing here may break a node: no file that RKE2 or K3s overwrites is edited, no GPU is taken from a virtual
//! machine, and a restart of a server comes with what to mind.

use pitcrew_core::catalog::{Card, KernelModules};
use pitcrew_host::Host;
use pitcrew_host::facts::{Distribution, DistributionKind, OsFamily, OsRelease, Role};

/// The branch of the driver that knows every card from Maxwell to Blackwell.
pub(crate) const BRANCH: u32 = 580;

/// What to mind before a reboot.
const REBOOT: &str = "drain this node first, and reboot servers one at a time";

/// Makes commands for one node.
pub(crate) struct Advice<'a> {
    family: OsFamily,
    /// Major version of the operating system, where it has one.
    major: Option<u32>,
    distribution: Option<&'a Distribution>,
}

impl<'a> Advice<'a> {
    pub(crate) fn new(host: &'a Host) -> Self {
        let os = host.system.os.value();
        Self {
            family: os.map_or(OsFamily::Other, family),
            major: os.and_then(|os| os.version.split('.').next()?.parse().ok()),
            distribution: host.distribution.value(),
        }
    }

    pub(crate) fn family(&self) -> OsFamily {
        self.family
    }

    /// What to mind before a reboot.
    pub(crate) fn before_reboot(&self) -> Option<String> {
        self.distribution.map(|_| REBOOT.to_owned())
    }

    /// Installs a driver that knows all of these cards, and starts it by a reboot.
    pub(crate) fn install_driver(&self, cards: &[&Card]) -> String {
        self.install_branch(BRANCH, wants_proprietary(cards))
    }

    fn install_branch(&self, branch: u32, proprietary: bool) -> String {
        let install = match (self.family, proprietary) {
            (OsFamily::Ubuntu, false) => format!("sudo apt install nvidia-driver-{branch}-server-open"),
            (OsFamily::Ubuntu, true) => format!("sudo apt install nvidia-driver-{branch}-server"),
            (OsFamily::Debian, false) => "sudo apt install nvidia-open".to_owned(),
            (OsFamily::Debian, true) => format!("sudo apt install cuda-drivers-{branch}"),
            (OsFamily::RedHat, false) if self.major.is_some_and(|major| major >= 10) => {
                "sudo dnf install nvidia-open".to_owned()
            }
            (OsFamily::RedHat, true) if self.major.is_some_and(|major| major >= 10) => {
                "sudo dnf install cuda-drivers".to_owned()
            }
            (OsFamily::RedHat, false) => format!("sudo dnf module install nvidia-driver:{branch}-open"),
            (OsFamily::RedHat, true) => format!("sudo dnf module install nvidia-driver:{branch}-dkms"),
            (OsFamily::Suse | OsFamily::SuseTransactional, proprietary) => {
                let module = if proprietary {
                    "nvidia-driver-G06-kmp-default"
                } else {
                    "nvidia-open-driver-G06-signed-kmp-default"
                };
                let packages = format!("{module} nvidia-compute-utils-G06");
                if self.family == OsFamily::Suse {
                    format!("sudo zypper install {packages}")
                } else {
                    format!("sudo transactional-update pkg install {packages}")
                }
            }
            (OsFamily::Other, _) => {
                return "install NVIDIA's driver with this system's package manager, then reboot".to_owned();
            }
        };
        format!("{install} && sudo reboot")
    }

    /// Where the packages of [`Self::install_driver`] come from; part of the reason.
    pub(crate) fn driver_source(&self) -> &'static str {
        match self.family {
            OsFamily::Ubuntu => "the packages are Ubuntu's own",
            OsFamily::Debian | OsFamily::RedHat => "the packages are in NVIDIA's CUDA repository",
            OsFamily::Suse | OsFamily::SuseTransactional => {
                "the packages are SUSE's and in NVIDIA's CUDA repository; both must be of one version"
            }
            OsFamily::Other => "see what this system's maker says about it",
        }
    }

    /// Installs the user-space libraries of the driver that is loaded.
    pub(crate) fn install_libraries(&self, branch: u32) -> String {
        match self.family {
            OsFamily::Ubuntu => {
                format!("sudo apt install libnvidia-compute-{branch}-server nvidia-utils-{branch}-server")
            }
            OsFamily::Debian => "sudo apt install libcuda1 libnvidia-ml1 nvidia-smi".to_owned(),
            OsFamily::RedHat => "sudo dnf install nvidia-driver-cuda".to_owned(),
            OsFamily::Suse => "sudo zypper install nvidia-compute-utils-G06".to_owned(),
            OsFamily::SuseTransactional => {
                "sudo transactional-update pkg install nvidia-compute-utils-G06 && sudo reboot".to_owned()
            }
            OsFamily::Other => {
                format!("install the libraries of driver branch {branch} with this system's package manager")
            }
        }
    }

    /// Keeps nouveau from taking the GPU, from the next boot on.
    pub(crate) fn blacklist_nouveau(&self) -> String {
        if self.family == OsFamily::Other {
            return "add module_blacklist=nouveau to the kernel command line, then reboot".to_owned();
        }
        let write = "printf 'blacklist nouveau\\noptions nouveau modeset=0\\n' \
                     | sudo tee /etc/modprobe.d/blacklist-nouveau.conf";
        format!("{write} && {} && sudo reboot", self.initramfs())
    }

    /// Makes the early boot image anew.
    fn initramfs(&self) -> &'static str {
        match self.family {
            OsFamily::Ubuntu | OsFamily::Debian => "sudo update-initramfs -u",
            OsFamily::RedHat | OsFamily::Suse | OsFamily::Other => "sudo dracut --force",
            OsFamily::SuseTransactional => "sudo transactional-update initrd",
        }
    }

    /// Adds an argument to the kernel command line, from the next boot on.
    pub(crate) fn kernel_argument(&self, argument: &str) -> String {
        let edit = format!("sudo sed -i 's/^GRUB_CMDLINE_LINUX_DEFAULT=\"/&{argument} /' /etc/default/grub");
        let command = match self.family {
            // Cloud images set GRUB_CMDLINE_LINUX_DEFAULT in a file there, which goes before /etc/default/grub.
            OsFamily::Ubuntu | OsFamily::Debian => format!(
                "echo 'GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX {argument}\"' \
                 | sudo tee /etc/default/grub.d/99-gpu.cfg && sudo update-grub"
            ),
            OsFamily::RedHat => format!("sudo grubby --update-kernel=ALL --args={argument}"),
            OsFamily::Suse => format!("{edit} && sudo grub2-mkconfig -o /boot/grub2/grub.cfg"),
            OsFamily::SuseTransactional => format!("{edit} && sudo transactional-update grub.cfg"),
            OsFamily::Other => {
                return format!("add {argument} to the kernel command line, then reboot");
            }
        };
        format!("{command} && sudo reboot")
    }

    /// Gets a kernel module that Secure Boot lets in, and what to mind.
    pub(crate) fn signed_module(&self, cards: &[&Card]) -> (String, String) {
        let open = if wants_proprietary(cards) { "" } else { "-open" };
        match self.family {
            OsFamily::Ubuntu => (
                format!(
                    "sudo apt install linux-modules-nvidia-{BRANCH}-server{open}-$(uname -r) && sudo modprobe nvidia"
                ),
                "these modules are signed by Canonical; remove those that DKMS built".to_owned(),
            ),
            OsFamily::Suse | OsFamily::SuseTransactional if !open.is_empty() => (
                self.install_branch(BRANCH, false),
                format!("these modules are signed by SUSE; {REBOOT}"),
            ),
            OsFamily::Debian | OsFamily::RedHat => (
                "sudo mokutil --import /var/lib/dkms/mok.pub && sudo reboot".to_owned(),
                format!("the key is confirmed at the console while booting; {REBOOT}"),
            ),
            OsFamily::Suse | OsFamily::SuseTransactional | OsFamily::Other => (
                "sudo mokutil --import KEY.der && sudo reboot".to_owned(),
                format!("KEY.der is the key that signed nvidia.ko; it is confirmed at the console; {REBOOT}"),
            ),
        }
    }

    /// Installs and starts Fabric Manager of the driver's branch.
    pub(crate) fn install_fabric_manager(&self, branch: u32) -> String {
        let start = "sudo systemctl enable --now nvidia-fabricmanager";
        let install = match self.family {
            OsFamily::Ubuntu | OsFamily::Debian => {
                format!("sudo apt install nvidia-fabricmanager-{branch}")
            }
            OsFamily::RedHat => "sudo dnf install nvidia-fabricmanager".to_owned(),
            OsFamily::Suse => "sudo zypper install nvidia-fabricmanager".to_owned(),
            OsFamily::SuseTransactional => {
                return "sudo transactional-update pkg install nvidia-fabricmanager && sudo reboot"
                    .to_owned();
            }
            OsFamily::Other => {
                return format!("install NVIDIA's Fabric Manager of the driver's version, then {start}");
            }
        };
        format!("{install} && {start}")
    }

    /// `kubectl`, as it is called on this node.
    pub(crate) fn kubectl(&self) -> String {
        match self.distribution {
            Some(it) if it.role == Role::Server && it.kind == DistributionKind::Rke2 => {
                "kubectl --kubeconfig /etc/rancher/rke2/rke2.yaml".to_owned()
            }
            Some(it) if it.role == Role::Server && it.kind == DistributionKind::K3s => {
                "k3s kubectl".to_owned()
            }
            _ => "kubectl".to_owned(),
        }
    }

    /// The systemd unit that the container runtime lives in.
    pub(crate) fn unit(&self) -> String {
        let Some(distribution) = self.distribution else {
            return "containerd".to_owned();
        };
        if let Some(unit) = distribution.unit.value() {
            return unit.trim_end_matches(".service").to_owned();
        }
        match (distribution.kind, distribution.role) {
            (DistributionKind::Rke2, Role::Server) => "rke2-server",
            (DistributionKind::Rke2, _) => "rke2-agent",
            (DistributionKind::K3s, Role::Server) => "k3s",
            (DistributionKind::K3s, _) => "k3s-agent",
            (DistributionKind::Kubeadm | DistributionKind::None, _) => "containerd",
        }
        .to_owned()
    }

    /// Restarts the container runtime, and what to mind. Its running pods stay.
    pub(crate) fn restart(&self) -> (String, Option<String>) {
        let care = match self.distribution {
            Some(it) if it.role == Role::Agent => None,
            Some(it) if matches!(it.kind, DistributionKind::Rke2 | DistributionKind::K3s) => Some(
                "one server at a time, only while all others are Ready; `pitcrew check --next-boot` first"
                    .to_owned(),
            ),
            _ => None,
        };
        (format!("sudo systemctl restart {}", self.unit()), care)
    }
}

/// True where a card is older than the open kernel modules.
fn wants_proprietary(cards: &[&Card]) -> bool {
    cards
        .iter()
        .any(|card| card.driver_support().kernel_modules == KernelModules::ProprietaryOnly)
}

/// The family of an operating system.
pub(crate) fn family(os: &OsRelease) -> OsFamily {
    let own = |names: &[&str]| names.contains(&os.id.as_str());
    let like = |names: &[&str]| own(names) || os.id_like.iter().any(|id| names.contains(&id.as_str()));
    if own(&[
        "sle-micro",
        "sl-micro",
        "suse-microos",
        "opensuse-microos",
        "opensuse-leap-micro",
    ]) {
        OsFamily::SuseTransactional
    } else if like(&[
        "suse",
        "opensuse",
        "sles",
        "sled",
        "opensuse-leap",
        "opensuse-tumbleweed",
    ]) {
        OsFamily::Suse
    } else if like(&["ubuntu"]) {
        OsFamily::Ubuntu
    } else if like(&["debian"]) {
        OsFamily::Debian
    } else if like(&["rhel", "centos", "fedora", "rocky", "almalinux", "ol"]) {
        OsFamily::RedHat
    } else {
        OsFamily::Other
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::sample;

    fn os(id: &str, like: &[&str]) -> OsRelease {
        OsRelease {
            id: id.to_owned(),
            id_like: like.iter().map(|&it| it.to_owned()).collect(),
            version: String::new(),
            pretty_name: String::new(),
        }
    }

    #[test]
    fn an_operating_system_belongs_to_the_family_that_installs_as_it_does() {
        let cases = [
            ("ubuntu", &["debian"][..], OsFamily::Ubuntu),
            ("pop", &["ubuntu", "debian"], OsFamily::Ubuntu),
            ("debian", &[], OsFamily::Debian),
            ("sles", &["suse"], OsFamily::Suse),
            ("sle-micro", &["suse"], OsFamily::SuseTransactional),
            ("sl-micro", &["suse"], OsFamily::SuseTransactional),
            ("rocky", &["rhel", "centos", "fedora"], OsFamily::RedHat),
            ("rhel", &["fedora"], OsFamily::RedHat),
            ("flatcar", &["coreos"], OsFamily::Other),
        ];
        for (id, like, family_of) in cases {
            assert_eq!(family(&os(id, like)), family_of, "{id}");
        }
    }

    #[test]
    fn every_family_has_its_own_commands() {
        let t4 = pitcrew_core::catalog::find("T4").unwrap();
        let v100 = pitcrew_core::catalog::find("V100 SXM2 32GB").unwrap();
        let mut shown = String::new();
        for (id, version) in [
            ("ubuntu", "24.04"),
            ("debian", "12"),
            ("rhel", "9.4"),
            ("rocky", "10.0"),
            ("sles", "15.6"),
            ("sle-micro", "6.0"),
            ("flatcar", "4000"),
        ] {
            let host = sample::host().os(id, version).build();
            let advice = Advice::new(&host);
            for line in [
                advice.install_driver(&[t4]),
                advice.install_driver(&[v100]),
                advice.install_libraries(580),
                advice.blacklist_nouveau(),
                advice.kernel_argument("pci=realloc"),
                advice.signed_module(&[t4]).0,
                advice.signed_module(&[v100]).0,
                advice.install_fabric_manager(580),
            ] {
                let _ = writeln!(shown, "{id} {version}: {line}");
            }
        }
        insta::assert_snapshot!(shown);
    }

    #[test]
    fn a_restart_names_the_unit_and_warns_of_servers() {
        let restart = |kind, role| Advice::new(&sample::host().distribution(kind, role).build()).restart();
        let (command, care) = restart(DistributionKind::Rke2, Role::Agent);
        assert_eq!(
            (command.as_str(), care),
            ("sudo systemctl restart rke2-agent", None)
        );
        let (command, care) = restart(DistributionKind::K3s, Role::Server);
        assert_eq!(command, "sudo systemctl restart k3s");
        assert!(care.is_some_and(|care| care.starts_with("one server at a time")));
        assert!(restart(DistributionKind::Rke2, Role::Unknown).1.is_some());
        assert_eq!(
            restart(DistributionKind::Kubeadm, Role::Agent).0,
            "sudo systemctl restart containerd"
        );
    }
}
