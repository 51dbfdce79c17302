//! Versions of installed packages, where the package manager's list is text: Debian's and Ubuntu's.

use pitcrew_core::ports::HostFs;
use semver::Version;

use crate::read;

/// The version of the first of these packages that is installed.
pub(crate) fn version(fs: &dyn HostFs, names: &[&str]) -> Option<Version> {
    let status = read::text(fs, "/var/lib/dpkg/status");
    let status = status.value()?;
    names.iter().find_map(|name| dpkg_version(status, name))
}

/// The version of an installed package in the text of dpkg's `status`, without Debian's epoch and revision.
pub fn dpkg_version(status: &str, name: &str) -> Option<Version> {
    let start = format!("Package: {name}\n");
    let at = if status.starts_with(&start) {
        0
    } else {
        status.find(&format!("\n{start}"))? + 1
    };
    let paragraph = status[at..].split("\n\n").next()?;
    let field = |name: &str| {
        let mut lines = paragraph.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    };
    if !field("Status")?.ends_with(" installed") {
        return None;
    }
    let version = field("Version")?;
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    let end = version
        .find(|character: char| !(character.is_ascii_digit() || character == '.'))
        .unwrap_or(version.len());
    version[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Package: a\nStatus: install ok installed\nVersion: 1.0-1\n\nPackage: containerd\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:2.1.9+ds1-5\n\nPackage: kubelet\nStatus: deinstall ok config-files\nVersion: 1.31.2-1.1\n";

    #[test]
    fn versions_of_installed_packages_are_read_without_debians_parts() {
        assert_eq!(dpkg_version(STATUS, "containerd"), Some(Version::new(2, 1, 9)));
        assert_eq!(dpkg_version(STATUS, "kubelet"), None);
        assert_eq!(dpkg_version(STATUS, "a"), None);
        assert_eq!(dpkg_version(STATUS, "b"), None);
    }
}
