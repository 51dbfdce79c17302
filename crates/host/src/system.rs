//! Operating system and kernel.

use pitcrew_core::Reading;
use pitcrew_core::ports::HostFs;

use crate::facts::{CgroupVersion, OsRelease, System};
use crate::read;

/// The EFI variable that says whether the firmware verifies what it boots, with the vendor that the specification
/// gives to global variables.
const SECURE_BOOT: &str = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

pub(crate) fn gather(fs: &dyn HostFs) -> System {
    let mounts = mounts(fs);
    System {
        os: os_release(fs),
        kernel: read::line(fs, "/proc/sys/kernel/osrelease"),
        cgroup: cgroup(fs, &mounts),
        secure_boot: secure_boot(fs),
        lockdown: lockdown(fs),
        hypervisor: hypervisor(fs),
        iommu_groups: iommu_groups(fs),
        usr_read_only: mounts.map(|mounts| is_read_only(&mounts)),
        machine: read::line(fs, "/sys/class/dmi/id/product_name"),
        command_line: read::text(fs, "/proc/cmdline").map(|text| words(&text)),
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

fn os_release(fs: &dyn HostFs) -> Reading<OsRelease> {
    match read::text(fs, "/etc/os-release") {
        Reading::NotSupported => read::text(fs, "/usr/lib/os-release"),
        found => found,
    }
    .map(|text| parse_os_release(&text))
}

/// Reads the text of `os-release`; what isn't an assignment is passed over. By its specification an absent `ID` means
/// `linux`.
pub fn parse_os_release(text: &str) -> OsRelease {
    let mut release = OsRelease {
        id: "linux".to_owned(),
        id_like: Vec::new(),
        version: String::new(),
        pretty_name: String::new(),
    };
    for line in text.lines() {
        let Some((key, value)) = line.trim().split_once('=') else {
            continue;
        };
        let value = unquote(value);
        match key {
            "ID" => release.id = value,
            "ID_LIKE" => release.id_like = words(&value),
            "VERSION_ID" => release.version = value,
            "PRETTY_NAME" => release.pretty_name = value,
            _ => {}
        }
    }
    release
}

/// A value of a shell assignment: quotes go, and in double quotes the backslash before what it protects.
fn unquote(value: &str) -> String {
    let value = value.trim();
    let inside = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    if let Some(plain) = inside('\'') {
        return plain.to_owned();
    }
    let mut characters = inside('"').unwrap_or(value).chars();
    let mut plain = String::new();
    while let Some(character) = characters.next() {
        plain.extend(if character == '\\' {
            characters.next()
        } else {
            Some(character)
        });
    }
    plain
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where.
    pub target: String,
    /// Type of the file system.
    pub kind: String,
    /// Options, e.g. `rw`.
    pub options: Vec<String>,
}

/// The mounts of the machine: those of its first process, or where that may not be looked at, our own.
fn mounts(fs: &dyn HostFs) -> Reading<Vec<Mount>> {
    let first = read::text(fs, "/proc/1/mounts");
    let text = if first.value().is_some_and(|text| !text.is_empty()) {
        first
    } else {
        read::text(fs, "/proc/mounts")
    };
    text.map(|text| parse_mounts(&text))
}

/// Reads the text of `/proc/mounts`.
pub fn parse_mounts(text: &str) -> Vec<Mount> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (_source, target, kind, options) =
                (words.next()?, words.next()?, words.next()?, words.next()?);
            Some(Mount {
                target: unescape(target),
                kind: kind.to_owned(),
                options: options.split(',').map(str::to_owned).collect(),
            })
        })
        .collect()
}

/// The kernel writes blanks and backslashes of paths as three octal digits.
fn unescape(text: &str) -> String {
    let mut plain = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = (byte == b'\\').then(|| after.get(..3)).flatten();
        let code = code
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(code.unwrap_or(byte));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    read::lossy(&plain)
}

/// The last mount at a place is the one that is seen; without one, `/usr` is a part of `/`.
fn is_read_only(mounts: &[Mount]) -> bool {
    let at = |target: &str| mounts.iter().rev().find(|mount| mount.target == target);
    let usr = at("/usr").or_else(|| at("/"));
    usr.is_some_and(|mount| mount.options.iter().any(|option| option == "ro"))
}

fn cgroup(fs: &dyn HostFs, mounts: &Reading<Vec<Mount>>) -> Reading<CgroupVersion> {
    if read::exists(fs, "/sys/fs/cgroup/cgroup.controllers") {
        return Reading::Value(CgroupVersion::V2);
    }
    match mounts {
        Reading::Value(mounts) => cgroup_version(mounts).map_or_else(
            || Reading::Failed("no control groups are mounted".to_owned()),
            Reading::Value,
        ),
        Reading::NotSupported => Reading::Failed("`/proc/mounts` is not there".to_owned()),
        Reading::Failed(why) => Reading::Failed(why.clone()),
    }
}

/// The version of the control groups, from where they are mounted.
pub fn cgroup_version(mounts: &[Mount]) -> Option<CgroupVersion> {
    let unified = |mount: &&Mount| mount.kind == "cgroup2";
    if mounts
        .iter()
        .filter(unified)
        .any(|mount| mount.target == "/sys/fs/cgroup")
    {
        return Some(CgroupVersion::V2);
    }
    let legacy = mounts.iter().any(|mount| mount.kind == "cgroup");
    legacy.then(|| {
        if mounts.iter().any(|mount| unified(&mount)) {
            CgroupVersion::Hybrid
        } else {
            CgroupVersion::V1
        }
    })
}

fn secure_boot(fs: &dyn HostFs) -> Reading<bool> {
    match read::reading(SECURE_BOOT.as_ref(), fs.read(SECURE_BOOT.as_ref())) {
        Reading::Value(bytes) => parse_secure_boot(&bytes),
        Reading::Failed(why) => Reading::Failed(why),
        Reading::NotSupported if !read::exists(fs, "/sys/firmware/efi") => Reading::NotSupported,
        Reading::NotSupported if read::names_or_none(fs, "/sys/firmware/efi/efivars").is_empty() => {
            Reading::Failed(
                "the machine has EFI, and its variables are not mounted at `/sys/firmware/efi/efivars`"
                    .to_owned(),
            )
        }
        // Firmware that has variables and not this one can't do it.
        Reading::NotSupported => Reading::Value(false),
    }
}

/// An EFI variable as the kernel shows it: four bytes of attributes, then the value, here one byte.
pub fn parse_secure_boot(bytes: &[u8]) -> Reading<bool> {
    match bytes {
        [_, _, _, _, value] => Reading::Value(*value == 1),
        _ => Reading::Failed(format!(
            "the EFI variable `SecureBoot` has {} bytes, not 5",
            bytes.len()
        )),
    }
}

fn lockdown(fs: &dyn HostFs) -> Reading<String> {
    match read::line(fs, "/sys/kernel/security/lockdown") {
        Reading::Value(line) => match parse_lockdown(&line) {
            Some(mode) => Reading::Value(mode.to_owned()),
            None => Reading::Failed(format!("`/sys/kernel/security/lockdown` says `{line}`")),
        },
        absent => absent,
    }
}

/// The mode in brackets of `none [integrity] confidentiality`.
pub fn parse_lockdown(line: &str) -> Option<&str> {
    line.split_ascii_whitespace()
        .find_map(|word| word.strip_prefix('[')?.strip_suffix(']'))
}

/// Hypervisors by what they call the machine's maker and product; either may be empty here.
const HYPERVISORS: [(&str, &str, &str); 18] = [
    ("QEMU", "", "QEMU/KVM"),
    ("VMware, Inc.", "", "VMware"),
    ("VMW", "", "VMware"),
    ("Microsoft Corporation", "Virtual Machine", "Hyper-V"),
    ("Xen", "", "Xen"),
    ("innotek GmbH", "", "VirtualBox"),
    ("Amazon EC2", "", "Amazon EC2 (Nitro)"),
    ("Google", "Google Compute Engine", "Google Compute Engine"),
    ("Nutanix", "AHV", "Nutanix AHV"),
    ("Red Hat", "KVM", "KVM"),
    ("Red Hat", "RHEV", "oVirt/RHV"),
    ("Red Hat", "OpenStack", "OpenStack/KVM"),
    ("oVirt", "", "oVirt/RHV"),
    ("OpenStack Foundation", "", "OpenStack/KVM"),
    ("RDO", "OpenStack", "OpenStack/KVM"),
    ("Alibaba Cloud", "", "Alibaba Cloud"),
    ("DigitalOcean", "", "DigitalOcean/KVM"),
    ("Parallels", "", "Parallels"),
];

fn hypervisor(fs: &dyn HostFs) -> Reading<String> {
    let vendor = read::line(fs, "/sys/class/dmi/id/sys_vendor");
    let product = read::line(fs, "/sys/class/dmi/id/product_name");
    let named = hypervisor_of(
        vendor.value().map_or("", String::as_str),
        product.value().map_or("", String::as_str),
    );
    // A processor's flags are long and the same for each: the first is enough.
    let cpuinfo = read::text(fs, "/proc/cpuinfo");
    let flags = cpuinfo
        .value()
        .and_then(|text| text.lines().find(|line| line.starts_with("flags")));
    match (named, flags) {
        (named, Some(flags)) => {
            if !flags.split_ascii_whitespace().any(|flag| flag == "hypervisor") {
                return Reading::NotSupported;
            }
            let kind = read::line(fs, "/sys/hypervisor/type");
            let unnamed = || {
                kind.value()
                    .cloned()
                    .unwrap_or_else(|| "an unnamed hypervisor".to_owned())
            };
            Reading::Value(named.map_or_else(unnamed, str::to_owned))
        }
        (Some(named), None) => Reading::Value(named.to_owned()),
        (None, None) if vendor.is_absent() && cpuinfo.is_absent() => {
            Reading::Failed("neither `/sys/class/dmi/id` nor `/proc/cpuinfo` can be read".to_owned())
        }
        (None, None) => Reading::NotSupported,
    }
}

/// The hypervisor that gives its machines this maker and product; `None` for a real machine's.
pub fn hypervisor_of(vendor: &str, product: &str) -> Option<&'static str> {
    // The bare metal of EC2 has the vendor of its virtual machines.
    if product.split(['.', '-']).any(|part| part == "metal") {
        return None;
    }
    HYPERVISORS
        .iter()
        .find(|(of, starts, _)| vendor == *of && product.starts_with(starts))
        .map(|(_, _, name)| *name)
}

fn iommu_groups(fs: &dyn HostFs) -> Reading<u32> {
    match read::names(fs, "/sys/kernel/iommu_groups") {
        Reading::Value(names) => Reading::Value(u32::try_from(names.len()).unwrap_or(u32::MAX)),
        // A kernel without IOMMU support, or on a machine without one.
        Reading::NotSupported => Reading::Value(0),
        Reading::Failed(why) => Reading::Failed(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_is_read_as_a_shell_would() {
        let release = parse_os_release(
            "NAME=\"SLE Micro\"\nID=\"sle-micro\"\n# comment\nID_LIKE=\"suse opensuse\"\nVERSION_ID='6.0'\nPRETTY_NAME=\"A \\\"B\\\"\"\n",
        );
        assert_eq!(release.id, "sle-micro");
        assert_eq!(release.id_like, ["suse", "opensuse"]);
        assert_eq!(release.version, "6.0");
        assert_eq!(release.pretty_name, "A \"B\"");
        assert_eq!(parse_os_release("").id, "linux");
    }

    #[test]
    fn control_groups_are_told_by_their_mounts() {
        let version = |text: &str| cgroup_version(&parse_mounts(text));
        let v2 = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        let v1 = "tmpfs /sys/fs/cgroup tmpfs ro 0 0\ncgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n";
        let unified = "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(version(v2), Some(CgroupVersion::V2));
        assert_eq!(version(v1), Some(CgroupVersion::V1));
        assert_eq!(version(&format!("{v1}{unified}")), Some(CgroupVersion::Hybrid));
        assert_eq!(version("proc /proc proc rw 0 0\n"), None);
    }

    #[test]
    fn usr_is_read_only_by_its_own_mount_or_by_that_of_the_root() {
        let read_only = |text: &str| is_read_only(&parse_mounts(text));
        assert!(read_only("/dev/vda3 / btrfs ro,relatime 0 0\n"));
        assert!(read_only("/dev/vda3 / ext4 rw 0 0\n/dev/vda4 /usr ext4 ro 0 0\n"));
        assert!(!read_only("/dev/vda3 / ext4 rw,errors=remount-ro 0 0\n"));
        assert!(!read_only("/dev/vda3 / btrfs ro 0 0\noverlay / overlay rw 0 0\n"));
    }

    #[test]
    fn escapes_in_mounts_are_undone() {
        let mounts = parse_mounts("none /mnt/a\\040b\\134c\\9 tmpfs rw 0 0\nshort line\n");
        assert_eq!(mounts.len(), 1);
        assert_eq!(mounts[0].target, "/mnt/a b\\c\\9");
    }

    #[test]
    fn secure_boot_is_the_byte_behind_the_attributes() {
        assert_eq!(parse_secure_boot(&[6, 0, 0, 0, 1]), Reading::Value(true));
        assert_eq!(parse_secure_boot(&[6, 0, 0, 0, 0]), Reading::Value(false));
        assert!(parse_secure_boot(&[1]).failure().is_some());
    }

    #[test]
    fn lockdown_is_the_word_in_brackets() {
        assert_eq!(
            parse_lockdown("none [integrity] confidentiality"),
            Some("integrity")
        );
        assert_eq!(parse_lockdown("none"), None);
    }

    #[test]
    fn hypervisors_are_known_by_their_machines() {
        assert_eq!(
            hypervisor_of("QEMU", "Standard PC (Q35 + ICH9, 2009)"),
            Some("QEMU/KVM")
        );
        assert_eq!(
            hypervisor_of("Microsoft Corporation", "Virtual Machine"),
            Some("Hyper-V")
        );
        assert_eq!(hypervisor_of("Microsoft Corporation", "Surface"), None);
        assert_eq!(
            hypervisor_of("Amazon EC2", "p5.48xlarge"),
            Some("Amazon EC2 (Nitro)")
        );
        assert_eq!(hypervisor_of("Amazon EC2", "g4dn.metal"), None);
        assert_eq!(hypervisor_of("Supermicro", "SYS-421GE-TNRT"), None);
    }
}
