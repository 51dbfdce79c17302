//! Versions of distributions, told from their files.

use std::path::Path;

use pitcrew_core::Reading;
use pitcrew_core::ports::{FileKind, HostFs};
use semver::Version;

use super::settings;
use crate::{packages, read};

/// How much of the binary of K3s is searched, in bytes: all of it, by far.
const LARGEST_K3S: u64 = 256 << 20;

/// RKE2 unpacks each release into a directory of its own, and its `bin` points into the one in use.
pub(super) fn of_rke2(fs: &dyn HostFs, data_dir: &Path) -> Reading<Version> {
    let link = data_dir.join("bin");
    match fs.kind(&link) {
        Ok(FileKind::Link(target)) => {
            let digest = target
                .parent()
                .and_then(Path::file_name)
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            return parse_data_digest(&digest).map_or_else(
                || {
                    let (link, target) = (link.display(), target.display());
                    Reading::Failed(format!("`{link}` points at `{target}`, which names no release"))
                },
                Reading::Value,
            );
        }
        Ok(_) => return Reading::Failed(format!("`{}` is no link into a release", link.display())),
        Err(error) if !read::is_absent(&error) => return Reading::Failed(read::reason(&link, &error)),
        Err(_) => {}
    }
    let data = data_dir.join("data");
    let mut found: Vec<Version> = match read::names(fs, &data) {
        Reading::Value(names) => names.iter().filter_map(|name| parse_data_digest(name)).collect(),
        Reading::NotSupported => Vec::new(),
        Reading::Failed(why) => return Reading::Failed(why),
    };
    found.sort_unstable();
    found.dedup();
    match (found.pop(), found.len()) {
        (Some(version), 0) => Reading::Value(version),
        (Some(_), more) => Reading::Failed(format!("{} releases are in `{}`", more + 1, data.display())),
        (None, _) => Reading::Failed(format!(
            "no release has been unpacked into `{}` yet",
            data.display()
        )),
    }
}

/// The release in the name of a directory such as `v1.28.15-rke2r1-fa9ff3a3a1b5`.
pub fn parse_data_digest(name: &str) -> Option<Version> {
    let (version, rest) = name.strip_prefix('v')?.split_once("-rke2r")?;
    let revision = rest.split('-').next()?;
    let digits = !revision.is_empty() && revision.bytes().all(|byte| byte.is_ascii_digit());
    digits
        .then(|| format!("{version}+rke2r{revision}").parse().ok())
        .flatten()
}

/// K3s writes its version nowhere; its binary carries it.
pub(super) fn of_k3s(fs: &dyn HostFs, binaries: &[&str], data_dir: &Path) -> Reading<Version> {
    let unpacked = data_dir.join("data/current/bin/k3s");
    let mut unread = None;
    for path in binaries.iter().map(Path::new).chain([unpacked.as_path()]) {
        match search_k3s(fs, path) {
            Reading::Value(version) => return Reading::Value(version),
            Reading::NotSupported => {}
            Reading::Failed(why) => {
                unread.get_or_insert(why);
            }
        }
    }
    Reading::Failed(unread.unwrap_or_else(|| "the binary of K3s was not found".to_owned()))
}

fn search_k3s(fs: &dyn HostFs, path: &Path) -> Reading<Version> {
    if !read::is_file(fs, path) {
        return Reading::NotSupported;
    }
    match read::find(fs, path, b"v1.", LARGEST_K3S, parse_k3s_version) {
        Ok(Some(version)) => Reading::Value(version),
        Ok(None) => Reading::Failed(format!("`{}` carries no version", path.display())),
        Err(error) => Reading::Failed(read::reason(path, &error)),
    }
}

/// The version in bytes that follow `v1.`, e.g. `33.5+k3s1` and whatever comes then.
pub fn parse_k3s_version(rest: &[u8]) -> Option<Version> {
    let end = rest
        .iter()
        .position(|byte| !(byte.is_ascii_alphanumeric() || b".+-".contains(byte)))
        .unwrap_or(rest.len());
    let text = std::str::from_utf8(&rest[..end]).ok()?;
    // Strings of a Go binary stand side by side without an end, so that letters may follow the revision.
    let (numbers, after) = text.split_once("+k3s")?;
    // Digits too; no release has had more revisions than two digits can say.
    let digits = after.bytes().take(2).take_while(u8::is_ascii_digit).count();
    let plain = numbers.split('.').count() == 2 || numbers.contains('-');
    (digits > 0 && plain)
        .then(|| format!("1.{numbers}+k3s{}", &after[..digits]).parse().ok())
        .flatten()
}

/// The image of the API server on a control plane, else the package of the kubelet.
pub(super) fn of_kubeadm(fs: &dyn HostFs, api_server: &Reading<String>) -> Reading<Version> {
    let image = api_server
        .value()
        .and_then(|text| settings::image_in_manifest(text, "kube-apiserver"));
    let of_image = image
        .as_deref()
        .and_then(|image| image.rsplit_once(":v")?.1.parse().ok());
    of_image
        .or_else(|| packages::version(fs, &["kubelet"]))
        .map_or_else(
            || Reading::Failed("no file of this node tells it: ask `kubelet --version`".to_owned()),
            Reading::Value,
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_of_rke2_is_in_the_name_of_its_directory() {
        let version = |name: &str| parse_data_digest(name).map(|version| version.to_string());
        assert_eq!(
            version("v1.28.15-rke2r1-fa9ff3a3a1b5").as_deref(),
            Some("1.28.15+rke2r1")
        );
        assert_eq!(
            version("v1.31.0-rc2-rke2r1-0123").as_deref(),
            Some("1.31.0-rc2+rke2r1")
        );
        for name in [
            "",
            "v1.28.15",
            "1.28.15-rke2r1-a",
            "v1.28-rke2r1-a",
            "v1.28.15-rke2r-a",
            "current",
        ] {
            assert_eq!(version(name), None, "{name}");
        }
    }

    #[test]
    fn the_version_of_k3s_is_found_among_other_strings() {
        let version = |rest: &[u8]| parse_k3s_version(rest).map(|version| version.to_string());
        assert_eq!(version(b"33.5+k3s1\0").as_deref(), Some("1.33.5+k3s1"));
        assert_eq!(version(b"33.5+k3s1version").as_deref(), Some("1.33.5+k3s1"));
        assert_eq!(version(b"34.0-rc1+k3s1 ").as_deref(), Some("1.34.0-rc1+k3s1"));
        assert_eq!(version(b"33.5+k3s10").as_deref(), Some("1.33.5+k3s10"));
        assert_eq!(
            version(b"33.5+k3s1234567").as_deref(),
            Some("1.33.5+k3s12"),
            "the next string may begin with digits"
        );
        assert_eq!(version(b"22.0\0v1.33.5+k3s1"), None);
        assert_eq!(version(b"2.3.4+k3s1"), None);
        assert_eq!(version(b"33.5+k3s"), None);
    }
}
