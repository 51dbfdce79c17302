//! Which pod a process belongs to, told by the node alone: control groups, and the names of log directories.

use std::collections::BTreeMap;
use std::path::Path;

use pitcrew_core::Reading;
use pitcrew_core::ports::{FileKind, HostFs};

use crate::read;

/// A pod and a container, as the path of a control group names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// UID of the pod. Of a static pod that is the hash of its configuration, 32 digits without dashes.
    pub pod_uid: String,
    /// Id of the container; `None` for a process in the pod's own group.
    pub container_id: Option<String>,
}

/// Reads `/proc/<pid>/cgroup`, version 1 or 2: the first line that names a pod.
pub fn parse_cgroup(text: &str) -> Option<Membership> {
    text.lines().find_map(|line| {
        let path = line.splitn(3, ':').nth(2)?;
        parse_cgroup_path(path)
    })
}

/// Reads the path of a control group, as the kubelet makes them: with its own driver
/// (`/kubepods/burstable/pod<uid>/<id>`), with systemd's
/// (`/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice/cri-containerd-<id>.scope`), and where
/// the kubelet uses systemd's and containerd doesn't (`.../kubepods-besteffort-pod<uid>.slice:cri-containerd:<id>`).
pub fn parse_cgroup_path(path: &str) -> Option<Membership> {
    let mut segments = path
        .split('/')
        .skip_while(|segment| !segment.starts_with("kubepods"));
    // `kubepods` is there, and may itself name the pod.
    let mut found: Option<Membership> = None;
    for segment in &mut segments {
        if found.is_none() {
            found = parse_pod_segment(segment);
        } else if let Some(membership) = &mut found {
            membership.container_id = parse_container_segment(segment);
            break;
        }
    }
    found
}

/// `pod<uid>`, `kubepods-burstable-pod<uid>.slice`, or that with `:cri-containerd:<id>` behind it.
fn parse_pod_segment(segment: &str) -> Option<Membership> {
    let (slice, rest) = segment
        .split_once(':')
        .map_or((segment, None), |(slice, rest)| (slice, Some(rest)));
    let slice = slice.strip_suffix(".slice").unwrap_or(slice);
    let uid = match slice.strip_prefix("pod") {
        Some(uid) => uid,
        None => {
            slice
                .split_once("-pod")
                .filter(|(before, _)| before.starts_with("kubepods"))?
                .1
        }
    };
    // systemd takes a dash for a level of its tree, so that the kubelet writes underscores.
    let pod_uid = uid.replace('_', "-");
    let plain = pod_uid
        .bytes()
        .all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    if pod_uid.len() < 32 || pod_uid.len() > 36 || !plain {
        return None;
    }
    let container_id = rest
        .and_then(|rest| rest.rsplit(':').next())
        .filter(|id| is_container_id(id));
    Some(Membership {
        pod_uid,
        container_id: container_id.map(str::to_owned),
    })
}

/// `<id>`, or `cri-containerd-<id>.scope` and its like of other runtimes.
fn parse_container_segment(segment: &str) -> Option<String> {
    let name = segment.strip_suffix(".scope").unwrap_or(segment);
    let id = name.rsplit('-').next()?;
    is_container_id(id).then(|| id.to_owned())
}

fn is_container_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A pod that has logs on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The pods of a node by UID and its containers by id, from the names of their logs: known without the API server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pods {
    pods: BTreeMap<String, Pod>,
    containers: BTreeMap<String, String>,
}

impl Pods {
    /// Reads the names in `/var/log/pods` and `/var/log/containers`; what can't be listed names nobody.
    pub fn read(fs: &dyn HostFs) -> Self {
        let pods = read::names_or_none(fs, "/var/log/pods");
        let containers = read::names_or_none(fs, "/var/log/containers");
        Self {
            pods: pods.iter().filter_map(|name| parse_pod_directory(name)).collect(),
            containers: containers
                .iter()
                .filter_map(|name| parse_container_log(name))
                .collect(),
        }
    }

    /// The pod with this UID.
    pub fn pod(&self, uid: &str) -> Option<&Pod> {
        self.pods.get(uid)
    }

    /// Name of the container with this id, in its pod.
    pub fn container(&self, id: &str) -> Option<&str> {
        self.containers.get(id).map(String::as_str)
    }
}

/// UID and pod of a directory of `/var/log/pods`: `<namespace>_<name>_<uid>`.
pub fn parse_pod_directory(name: &str) -> Option<(String, Pod)> {
    let mut parts = name.split('_');
    let (namespace, name, uid) = (parts.next()?, parts.next()?, parts.next()?);
    let whole = parts.next().is_none() && [namespace, name, uid].iter().all(|part| !part.is_empty());
    whole.then(|| {
        let pod = Pod {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        (uid.to_owned(), pod)
    })
}

/// Id and name of a container of `/var/log/containers`: `<pod>_<namespace>_<container>-<id>.log`.
pub fn parse_container_log(name: &str) -> Option<(String, String)> {
    let (container, id) = name.strip_suffix(".log")?.rsplit('_').next()?.rsplit_once('-')?;
    (is_container_id(id) && !container.is_empty()).then(|| (id.to_owned(), container.to_owned()))
}

/// A process of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Name of its program.
    pub name: Reading<String>,
    /// Name of its user on the host, or the number where the host knows no such user.
    pub user: Reading<String>,
    /// The pod and container that it is in; `NotSupported` for a process of the host.
    pub membership: Reading<Membership>,
}

impl Process {
    /// Reads what the node says of a process.
    pub fn read(fs: &dyn HostFs, pid: u32) -> Self {
        let dir = Path::new("/proc").join(pid.to_string());
        let gone = |reading: Reading<String>| match reading {
            Reading::NotSupported => Reading::Failed(format!("there is no process {pid} on this node")),
            other => other,
        };
        let membership = match gone(read::text(fs, dir.join("cgroup"))) {
            Reading::Value(text) => parse_cgroup(&text).map_or(Reading::NotSupported, Reading::Value),
            Reading::NotSupported => Reading::NotSupported,
            Reading::Failed(why) => Reading::Failed(why),
        };
        Self {
            pid,
            name: gone(name(fs, &dir)),
            user: gone(user(fs, &dir)),
            membership,
        }
    }
}

/// The program's file name from the command line, which `comm` cuts off after fifteen characters.
fn name(fs: &dyn HostFs, dir: &Path) -> Reading<String> {
    let command = read::text(fs, dir.join("cmdline"));
    if let Some(name) = command.value().and_then(|text| program(text)) {
        return Reading::Value(name.to_owned());
    }
    read::line(fs, dir.join("comm"))
}

fn program(command: &str) -> Option<&str> {
    let first = command.split('\0').next()?;
    // Some write their state over their arguments: `nginx: worker process`.
    let first = first.split(' ').next()?;
    let name = first.rsplit('/').next()?;
    (!name.is_empty()).then_some(name)
}

fn user(fs: &dyn HostFs, dir: &Path) -> Reading<String> {
    let status = match read::text(fs, dir.join("status")) {
        Reading::Value(status) => status,
        absent => return absent,
    };
    let Some(uid) = parse_uid(&status) else {
        return Reading::Failed(format!("`{}` names no user", dir.join("status").display()));
    };
    let passwd = read::text(fs, "/etc/passwd");
    let known = passwd.value().and_then(|text| user_name(text, uid));
    Reading::Value(known.map_or_else(|| uid.to_string(), str::to_owned))
}

/// The effective user in `/proc/<pid>/status`.
pub fn parse_uid(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The name of a user in the text of `/etc/passwd`.
pub fn user_name(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid)).then_some(name)
    })
}

/// True where the node's processes are there to be seen: in a container without the host's own, they are not.
pub fn sees_processes(fs: &dyn HostFs) -> bool {
    matches!(fs.kind(Path::new("/proc/1")), Ok(FileKind::Directory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UID: &str = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9";
    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn found(path: &str) -> Option<(String, Option<String>)> {
        parse_cgroup(path).map(|found| (found.pod_uid, found.container_id))
    }

    #[test]
    fn every_form_of_a_pods_group_is_read() {
        let under = UID.replace('-', "_");
        let paths = [
            format!(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{under}.slice/cri-containerd-{ID}.scope\n"
            ),
            format!("0::/kubepods.slice/kubepods-pod{under}.slice/cri-containerd-{ID}.scope/nested\n"),
            format!("12:pids:/user.slice\n11:memory:/kubepods/besteffort/pod{UID}/{ID}\n"),
            format!("4:devices:/kubepods/pod{UID}/{ID}\n"),
            format!(
                "0::/system.slice/containerd.service/kubepods-besteffort-pod{under}.slice:cri-containerd:{ID}\n"
            ),
            format!("0::/../../kubepods-burstable-pod{under}.slice/cri-containerd-{ID}.scope\n"),
            format!(
                "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{under}.slice/crio-{ID}.scope/container\n"
            ),
        ];
        for path in paths {
            assert_eq!(
                found(&path),
                Some((UID.to_owned(), Some(ID.to_owned()))),
                "{path}"
            );
        }
    }

    #[test]
    fn a_static_pods_uid_has_no_dashes_and_a_pods_own_group_no_container() {
        let hash = "0a1b2c3d4e5f60718293a4b5c6d7e8f9";
        assert_eq!(
            found(&format!("0::/kubepods/burstable/pod{hash}")),
            Some((hash.to_owned(), None))
        );
    }

    #[test]
    fn processes_of_the_host_are_in_no_pod() {
        for text in [
            "0::/system.slice/rke2-agent.service\n",
            "0::/user.slice/user-1000.slice/session-3.scope\n",
            "0::/kubepods.slice\n",
            "0::/kubepods/podman\n",
            "",
        ] {
            assert_eq!(found(text), None, "{text}");
        }
    }

    #[test]
    fn pods_and_containers_are_named_by_their_logs() {
        assert_eq!(
            parse_pod_directory(&format!("ml_trainer-0_{UID}")),
            Some((
                UID.to_owned(),
                Pod {
                    namespace: "ml".to_owned(),
                    name: "trainer-0".to_owned()
                }
            ))
        );
        assert_eq!(parse_pod_directory("lost+found"), None);
        assert_eq!(
            parse_container_log(&format!("trainer-0_ml_main-loop-{ID}.log")),
            Some((ID.to_owned(), "main-loop".to_owned()))
        );
    }

    #[test]
    fn users_are_named_where_the_host_knows_them() {
        assert_eq!(parse_uid("Name:\tx\nUid:\t1000\t1001\t1000\t1000\n"), Some(1001));
        let passwd = "root:x:0:0:root:/root:/bin/bash\nada:x:1001:1001::/home/ada:/bin/sh\n";
        assert_eq!(user_name(passwd, 1001), Some("ada"));
        assert_eq!(user_name(passwd, 7), None);
        assert_eq!(program("/usr/bin/python3\0train.py\0"), Some("python3"));
        assert_eq!(program("nginx: worker process"), Some("nginx:"));
        assert_eq!(program(""), None);
    }

    proptest! {
        #[test]
        fn any_path_is_read_or_not(path in "(0::)?(/(kubepods|kubepods-|-pod|pod|:|[0-9a-f_]{0,40})*){0,5}") {
            let _ = parse_cgroup(&path);
        }
    }
}
