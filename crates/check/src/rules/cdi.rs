//! CDI specifications: readable, of today's driver, and each name only once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pitcrew_host::facts::{CdiFile, Service};

use super::Rule;
use crate::node::Node;
use crate::report::{Finding, Topic, listed, question};

pub(crate) const RULES: &[Rule] = &[readable, duplicates, stale, refresh];

const DIRS: &str = "/etc/cdi, /var/run/cdi";
/// What `nvidia-cdi-refresh` writes.
const REFRESHED: &str = "/var/run/cdi/nvidia.yaml";
/// How many names of a list are shown.
const SHOWN: usize = 4;

fn readable(node: &Node<'_>) -> Vec<Finding> {
    let ask = question(Topic::Cdi, "cdi.specifications", "specifications", DIRS);
    let files = &node.host.cdi;
    if files.is_empty() {
        return vec![ask.ok("none yet")];
    }
    let broken: Vec<String> = files
        .iter()
        .filter_map(|file| Some(format!("{}: {}", file.path.display(), file.spec.failure()?)))
        .collect();
    if !broken.is_empty() {
        return vec![
            ask.warning(
                listed(broken),
                "containerd passes over a specification that it can't read",
            )
            .next("sudo ls -l /etc/cdi /var/run/cdi".to_owned()),
        ];
    }
    let shown = files.iter().map(|file| {
        let name = file.path.display();
        match file.spec.value() {
            Some(spec) => {
                let devices = match spec.devices.len() {
                    1 => "1 device".to_owned(),
                    count => format!("{count} devices"),
                };
                format!("{name} ({}, {devices})", spec.kind)
            }
            None => name.to_string(),
        }
    });
    vec![ask.ok(listed(shown))]
}

/// A later directory wins over an earlier one; `/run` and `/var/run` are the same.
fn directory(path: &Path) -> PathBuf {
    let parent = path.parent().unwrap_or(path);
    match parent.strip_prefix("/run") {
        Ok(rest) => Path::new("/var/run").join(rest),
        Err(_) => parent.to_owned(),
    }
}

/// Qualified names that two files of one directory define, each with its files.
fn twice(files: &[CdiFile]) -> BTreeMap<String, Vec<&Path>> {
    let mut names: BTreeMap<(PathBuf, String), Vec<&Path>> = BTreeMap::new();
    for file in files {
        let Some(spec) = file.spec.value() else {
            continue;
        };
        for device in &spec.devices {
            let name = format!("{}={device}", spec.kind);
            names
                .entry((directory(&file.path), name))
                .or_default()
                .push(&file.path);
        }
    }
    names
        .into_iter()
        .filter(|(_, files)| files.len() > 1)
        .map(|((_, name), files)| (name, files))
        .collect()
}

fn duplicates(node: &Node<'_>) -> Vec<Finding> {
    let ask = question(Topic::Cdi, "cdi.duplicates", "names defined twice", DIRS);
    if node.host.cdi.is_empty() {
        return Vec::new();
    }
    let twice = twice(&node.host.cdi);
    let Some(files) = twice.values().next() else {
        return vec![ask.ok("none")];
    };
    let mut shown: Vec<&str> = twice.keys().map(String::as_str).collect();
    let more = shown.len().saturating_sub(SHOWN);
    shown.truncate(SHOWN);
    let mut found = listed(shown);
    if more > 0 {
        found = format!("{found} and {more} more");
    }
    let second = files
        .iter()
        .find(|path| path.as_os_str() != REFRESHED)
        .or(files.first());
    let command = if node.host.services.cdi_refresh != Service::Absent
        && files
            .iter()
            .any(|path| directory(path) == Path::new("/var/run/cdi"))
    {
        "sudo systemctl disable --now nvidia-cdi-refresh.path nvidia-cdi-refresh.service && sudo rm /var/run/cdi/nvidia.yaml"
            .to_owned()
    } else {
        let second = second.map_or_else(|| "FILE".to_owned(), |path| path.display().to_string());
        format!("sudo mv {second} /root/")
    };
    vec![
        ask.warning(
            format!("{found}, in {}", listed(files.iter().map(|path| path.display()))),
            "of a name that two files of one directory define containerd takes neither: a container that names it does \
             not start",
        )
        .next(command)
        .care("one of the files has to go; keep that of the program that is to rule".to_owned()),
    ]
}

/// Specifications of yesterday.
fn stale(node: &Node<'_>) -> Vec<Finding> {
    let driver = node.host.driver.kernel_version.value();
    let mut findings = Vec::new();
    for file in &node.host.cdi {
        let Some(spec) = file.spec.value() else {
            continue;
        };
        let mut what = Vec::new();
        if let (Some(written), Some(driver)) = (&spec.driver_version, driver)
            && written != driver
        {
            what.push(format!("is of driver {written}, and {driver} is loaded"));
        }
        if let Some(first) = spec.missing_paths.first() {
            what.push(match spec.missing_paths.len() {
                1 => format!("names {}, which is not there", first.display()),
                count => format!(
                    "names {count} files that are not there, {} first",
                    first.display()
                ),
            });
        }
        if what.is_empty() {
            continue;
        }
        let path = file.path.display();
        let ask = question(Topic::Cdi, "cdi.stale", "stale", path.to_string());
        findings.push(
            ask.warning(
                format!("{path} {}", what.join("; it ")),
                format!(
                    "a container that names a device of {} from it does not start, or gets a wrong driver",
                    spec.kind
                ),
            )
            .next(remake(node, &file.path, &spec.kind)),
        );
    }
    findings
}

/// How whoever wrote the file writes it anew.
fn remake(node: &Node<'_>, path: &Path, kind: &str) -> String {
    let is_refreshed = path.file_name().is_some_and(|name| name == "nvidia.yaml")
        && directory(path) == Path::new("/var/run/cdi")
        && node.host.services.cdi_refresh != Service::Absent;
    if is_refreshed {
        return "sudo systemctl restart nvidia-cdi-refresh.service".to_owned();
    }
    match kind {
        "k8s.device-plugin.nvidia.com/gpu" | "management.nvidia.com/gpu" => format!(
            "{} get pods -A -o wide | grep -e device-plugin -e container-toolkit",
            node.advice.kubectl()
        ),
        _ if node.host.foreign.host_toolkit.is_some() => {
            format!("sudo nvidia-ctk cdi generate --output={}", path.display())
        }
        _ => format!("sudo mv {} /root/", path.display()),
    }
}

fn refresh(node: &Node<'_>) -> Vec<Finding> {
    let service = node.host.services.cdi_refresh;
    if service == Service::Absent {
        return Vec::new();
    }
    let ask = question(
        Topic::Cdi,
        "cdi.refresh",
        "nvidia-cdi-refresh",
        "nvidia-cdi-refresh.service, nvidia-cdi-refresh.path",
    );
    vec![if service == Service::Installed {
        ask.ok("installed, not enabled")
    } else {
        ask.note(
            format!("writes {REFRESHED}"),
            "it defines nvidia.com/gpu by itself: no other file of that directory may",
        )
    }]
}

#[cfg(test)]
mod tests {
    use pitcrew_core::Reading;
    use pitcrew_host::facts::CdiSummary;

    use super::*;
    use crate::report::Verdict;
    use crate::rules::one;
    use crate::sample;

    fn file(path: &str, devices: &[&str]) -> CdiFile {
        CdiFile {
            path: path.into(),
            spec: Reading::Value(CdiSummary {
                version: "0.5.0".to_owned(),
                kind: "nvidia.com/gpu".to_owned(),
                devices: devices.iter().map(|&it| it.to_owned()).collect(),
                missing_paths: Vec::new(),
                driver_version: Some("580.159.04".to_owned()),
            }),
        }
    }

    fn with(files: Vec<CdiFile>) -> sample::Sample {
        sample::host().with(|host| host.cdi = files)
    }

    #[test]
    fn a_name_in_two_files_of_one_directory_is_lost_and_of_two_directories_is_not() {
        let host = with(vec![
            file("/var/run/cdi/nvidia.yaml", &["0", "all"]),
            file("/run/cdi/pitcrew.yaml", &["all"]),
        ]);
        let finding = one(&host.build(), "cdi.duplicates");
        assert_eq!(finding.verdict, Verdict::Warning);
        assert_eq!(
            finding.found,
            "nvidia.com/gpu=all, in /var/run/cdi/nvidia.yaml and /run/cdi/pitcrew.yaml"
        );
        assert_eq!(
            finding.next.as_deref(),
            Some("sudo mv /run/cdi/pitcrew.yaml /root/")
        );
        let host = with(vec![
            file("/etc/cdi/nvidia.yaml", &["all"]),
            file("/var/run/cdi/nvidia.yaml", &["all"]),
        ]);
        assert_eq!(one(&host.build(), "cdi.duplicates").verdict, Verdict::Ok);
    }

    #[test]
    fn a_specification_of_another_driver_is_written_anew_by_its_writer() {
        let host = with(vec![file("/etc/cdi/nvidia.yaml", &["0"])])
            .driver("580.173.02", true)
            .with(|host| host.foreign.host_toolkit = Some("/usr/bin/nvidia-ctk".into()));
        let finding = one(&host.build(), "cdi.stale");
        assert_eq!(
            finding.found,
            "/etc/cdi/nvidia.yaml is of driver 580.159.04, and 580.173.02 is loaded"
        );
        assert_eq!(
            finding.next.as_deref(),
            Some("sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml")
        );
        let host = with(vec![file("/var/run/cdi/nvidia.yaml", &["0"])])
            .driver("580.173.02", true)
            .with(|host| host.services.cdi_refresh = Service::Enabled);
        assert_eq!(
            one(&host.build(), "cdi.stale").next.as_deref(),
            Some("sudo systemctl restart nvidia-cdi-refresh.service")
        );
    }

    #[test]
    fn a_specification_that_cannot_be_read_is_named() {
        let broken = CdiFile {
            path: "/etc/cdi/x.yaml".into(),
            spec: Reading::Failed("no `kind`".to_owned()),
        };
        let finding = one(&with(vec![broken]).build(), "cdi.specifications");
        assert_eq!(finding.found, "/etc/cdi/x.yaml: no `kind`");
        assert_eq!(finding.verdict, Verdict::Warning);
    }
}
