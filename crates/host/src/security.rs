//! What may forbid what mode bits allow: SELinux, fapolicyd, FIPS, and what the audit log says of them.

use std::collections::VecDeque;
use std::path::Path;

use pitcrew_core::Reading;
use pitcrew_core::ports::HostFs;

use crate::facts::{SeLinux, Security, Service};
use crate::{read, systemd};

const AUDIT_LOG: &str = "/var/log/audit/audit.log";
/// How much of the end of the audit log is looked at, in bytes.
const AUDIT_TAIL: u64 = 512 * 1024;
/// Denials that are kept.
const MOST_DENIALS: usize = 10;
/// Characters of a denial that are kept.
const LONGEST_DENIAL: usize = 400;

/// Words that make a denial one of ours.
const CONCERNS: [&str; 8] = [
    "nvidia",
    "libcuda",
    "containerd",
    "runc",
    "rke2",
    "k3s",
    "kubelet",
    "pitcrew",
];

pub(crate) fn gather(fs: &dyn HostFs) -> Security {
    let log = Path::new(AUDIT_LOG);
    Security {
        selinux: selinux(fs),
        fapolicyd: match systemd::service(fs, "fapolicyd.service") {
            Service::Absent => Reading::NotSupported,
            service => Reading::Value(matches!(service, Service::Enabled | Service::Running)),
        },
        denials: read::reading(log, read::tail(fs, log, AUDIT_TAIL)).map(|text| denials(&text)),
        fips: read::line(fs, "/proc/sys/crypto/fips_enabled").map(|line| line == "1"),
    }
}

fn selinux(fs: &dyn HostFs) -> Reading<SeLinux> {
    match read::line(fs, "/sys/fs/selinux/enforce") {
        Reading::Value(line) => match line.as_str() {
            "1" => Reading::Value(SeLinux::Enforcing),
            "0" => Reading::Value(SeLinux::Permissive),
            other => Reading::Failed(format!("`/sys/fs/selinux/enforce` says `{other}`")),
        },
        Reading::NotSupported => Reading::NotSupported,
        Reading::Failed(why) => Reading::Failed(why),
    }
}

/// Denials in the text of an audit log that concern GPUs or container runtimes, the last ten, newest last: records of
/// SELinux (`AVC`, denied) as they are, and of fapolicyd (`FANOTIFY`, `resp=2`) with the program and the path that the
/// other records of the same event name.
pub fn denials(text: &str) -> Vec<String> {
    let mut found = VecDeque::new();
    let mut keep = |denial: String| {
        if CONCERNS.iter().any(|word| denial.contains(word)) {
            if found.len() == MOST_DENIALS {
                found.pop_front();
            }
            found.push_back(denial.chars().take(LONGEST_DENIAL).collect());
        }
    };
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let line = line.trim();
        if line.starts_with("type=AVC ") && line.contains("denied") {
            keep(line.to_owned());
        } else if line.starts_with("type=FANOTIFY ") && field(line, "resp") == Some("2") {
            let mut denial = line.to_owned();
            let event = event(line);
            // The records of one event follow one another.
            while let Some(other) = lines
                .peek()
                .filter(|other| event.is_some() && self::event(other) == event)
            {
                for name in ["exe", "name"] {
                    if let Some(value) = field(other, name) {
                        denial.extend([" ", name, "=", value]);
                    }
                }
                lines.next();
            }
            keep(denial);
        }
    }
    found.into()
}

/// `1600385147.372:590` of `msg=audit(1600385147.372:590):`.
fn event(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("msg=audit(")?;
    Some(rest.split_once(')')?.0)
}

/// The value of a field of a record, quotes and all.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split(' ')
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denials_of_selinux_that_concern_us_are_kept() {
        let text = "\
type=AVC msg=audit(1700000000.123:456): avc:  denied  { read write } for  pid=4242 comm=\"nvidia-smi\" path=\"/dev/nvidiactl\" dev=\"devtmpfs\" ino=612 scontext=system_u:system_r:container_t:s0:c1,c2 tcontext=system_u:object_r:xserver_misc_device_t:s0 tclass=chr_file permissive=0
type=AVC msg=audit(1700000000.124:457): avc:  granted  { read } for  pid=1 comm=\"runc\"
type=AVC msg=audit(1700000000.125:458): avc:  denied  { read } for  pid=1 comm=\"httpd\" path=\"/srv\"
";
        let found = denials(text);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("/dev/nvidiactl"));
    }

    #[test]
    fn denials_of_fapolicyd_name_program_and_path() {
        let text = "\
type=FANOTIFY msg=audit(1600385147.372:590): resp=2 fan_type=1 fan_info=3137 subj_trust=3 obj_trust=5
type=SYSCALL msg=audit(1600385147.372:590): arch=c000003e syscall=59 success=no comm=\"runc\" exe=\"/var/lib/rancher/rke2/bin/runc\"
type=PATH msg=audit(1600385147.372:590): item=0 name=\"/usr/local/nvidia/toolkit/nvidia-container-runtime\" inode=1
type=FANOTIFY msg=audit(1600385147.373:591): resp=1
type=FANOTIFY msg=audit(1600385147.374:592): resp=2
type=PATH msg=audit(1600385147.374:592): name=\"/home/x/a.out\"
";
        insta::assert_snapshot!(denials(text).join("\n"), @r#"type=FANOTIFY msg=audit(1600385147.372:590): resp=2 fan_type=1 fan_info=3137 subj_trust=3 obj_trust=5 exe="/var/lib/rancher/rke2/bin/runc" name="/usr/local/nvidia/toolkit/nvidia-container-runtime""#);
    }

    #[test]
    fn the_last_ten_are_kept() {
        let records: Vec<String> = (0..15)
            .map(|at| format!("type=AVC msg=audit(1.0:{at}): denied comm=\"nvidia-smi\""))
            .collect();
        let found = denials(&records.join("\n"));
        assert_eq!(found.len(), 10);
        assert!(found[9].contains(":14)"));
    }
}
