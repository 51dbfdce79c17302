//! What can be told of systemd's units from files: whether they are there, start at boot, and run now.

use std::path::{Path, PathBuf};

use pitcrew_core::Reading;
use pitcrew_core::ports::{FileKind, HostFs};

use crate::facts::{Service, Services};
use crate::read;

/// Where units are, in systemd's order of preference.
const UNIT_DIRS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Where the control groups of services are: version 2, version 1, hybrid.
const SERVICE_GROUPS: [&str; 3] = [
    "/sys/fs/cgroup/system.slice",
    "/sys/fs/cgroup/systemd/system.slice",
    "/sys/fs/cgroup/unified/system.slice",
];

pub(crate) fn gather(fs: &dyn HostFs) -> Services {
    let running = |service: Service, runs: bool| if runs { Service::Running } else { service };
    let refresh = [
        service(fs, "nvidia-cdi-refresh.service"),
        service(fs, "nvidia-cdi-refresh.path"),
    ];
    Services {
        fabric_manager: running(
            service(fs, "nvidia-fabricmanager.service"),
            pid_file_holds(fs, "/run/nvidia-fabricmanager/nv-fabricmanager.pid"),
        ),
        persistenced: running(
            service(fs, "nvidia-persistenced.service"),
            read::exists(fs, "/run/nvidia-persistenced/socket"),
        ),
        cdi_refresh: refresh
            .into_iter()
            .max_by_key(|service| rank(*service))
            .unwrap_or(Service::Absent),
        imex: service(fs, "nvidia-imex.service"),
    }
}

fn rank(service: Service) -> u8 {
    match service {
        Service::Absent => 0,
        Service::Installed => 1,
        Service::Enabled => 2,
        Service::Running => 3,
    }
}

/// True where the process of a pid file is there, or processes can't be seen at all.
fn pid_file_holds(fs: &dyn HostFs, path: &str) -> bool {
    let Reading::Value(pid) = read::line(fs, path) else {
        return false;
    };
    let plain = !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit());
    plain && (read::exists(fs, format!("/proc/{pid}")) || !read::exists(fs, "/proc/1"))
}

/// The state of a unit, by its name with its ending.
pub(crate) fn service(fs: &dyn HostFs, unit: &str) -> Service {
    if is_running(fs, unit) {
        Service::Running
    } else if unit_file(fs, unit).is_none() {
        Service::Absent
    } else if is_enabled(fs, unit) {
        Service::Enabled
    } else {
        Service::Installed
    }
}

/// The file of a unit; the first found is the one in force.
pub(crate) fn unit_file(fs: &dyn HostFs, unit: &str) -> Option<PathBuf> {
    UNIT_DIRS
        .iter()
        .map(|dir| Path::new(dir).join(unit))
        .find(|path| read::exists(fs, path))
}

/// Names of units that begin so, and end in `.service`.
pub(crate) fn services_named(fs: &dyn HostFs, prefix: &str) -> Vec<String> {
    let mut found: Vec<String> = UNIT_DIRS
        .iter()
        .flat_map(|dir| read::names_or_none(fs, dir))
        .collect();
    found.retain(|name| name.starts_with(prefix) && read::ends_in(name, "service"));
    found.sort_unstable();
    found.dedup();
    found
}

/// True where a target wants or requires the unit, and the unit isn't masked.
pub(crate) fn is_enabled(fs: &dyn HostFs, unit: &str) -> bool {
    let masked = unit_file(fs, unit)
        .and_then(|path| fs.kind(&path).ok())
        .is_some_and(|kind| kind == FileKind::Link("/dev/null".into()));
    !masked
        && UNIT_DIRS.iter().any(|dir| {
            read::names_or_none(fs, dir)
                .iter()
                .filter(|name| read::ends_in(name, "wants") || read::ends_in(name, "requires"))
                .any(|name| read::exists(fs, Path::new(dir).join(name).join(unit)))
        })
}

/// The control group of a unit that runs.
fn group(fs: &dyn HostFs, unit: &str) -> Option<PathBuf> {
    SERVICE_GROUPS
        .iter()
        .map(|dir| Path::new(dir).join(unit))
        .find(|path| read::exists(fs, path))
}

/// True where the unit has a control group: it has processes.
pub(crate) fn is_running(fs: &dyn HostFs, unit: &str) -> bool {
    group(fs, unit).is_some()
}

/// Processes of a unit, those in groups below its own not counted; `None` where they aren't listed.
pub(crate) fn processes(fs: &dyn HostFs, unit: &str) -> Option<Vec<u32>> {
    let text = read::text(fs, group(fs, unit)?.join("cgroup.procs"));
    Some(
        text.value()?
            .lines()
            .filter_map(|line| line.trim().parse().ok())
            .collect(),
    )
}

/// The text of a unit with all its drop-ins behind it, as far as it can be read.
pub(crate) fn unit_text(fs: &dyn HostFs, unit: &str) -> Reading<String> {
    let Some(path) = unit_file(fs, unit) else {
        return Reading::NotSupported;
    };
    let mut text = match read::text(fs, &path) {
        Reading::Value(text) => text,
        absent => return absent,
    };
    for dir in UNIT_DIRS
        .iter()
        .rev()
        .map(|dir| Path::new(dir).join(format!("{unit}.d")))
    {
        for name in read::names_or_none(fs, &dir) {
            if read::ends_in(&name, "conf")
                && let Reading::Value(more) = read::text(fs, dir.join(name))
            {
                text.push('\n');
                text.push_str(&more);
            }
        }
    }
    Reading::Value(text)
}

/// All values of a key in the text of a unit, lines that end in a backslash joined; an empty value forgets those
/// before it.
pub fn values(text: &str, key: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            continue;
        }
        let mut whole = line.to_owned();
        while let Some(joined) = whole.strip_suffix('\\') {
            let next = lines.next().unwrap_or_default().trim();
            whole = format!("{joined} {next}");
        }
        if let Some((name, value)) = whole.split_once('=')
            && name.trim() == key
        {
            match value.trim() {
                "" => found.clear(),
                value => found.push(value.to_owned()),
            }
        }
    }
    found
}

/// The words of a command line in a unit or of a shell, quotes taken away.
pub fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (None, ' ' | '\t' | '\n') => words.extend(word.take()),
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (Some(open), _) if open == character => quote = None,
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(characters.next()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

/// Assignments of an environment file; the last of a name counts.
pub fn environment(text: &str) -> Vec<(String, String)> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.starts_with(['#', ';']))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| {
            let name = name.trim().trim_start_matches("export ").trim();
            (name.to_owned(), words(value).join(" "))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_units_are_joined_over_lines() {
        let text = "[Service]\n# ExecStart=no\nExecStart=/usr/local/bin/k3s \\\n    server \\\n\t'--data-dir' \\\n\t'/data/k 3s' \\\n\nRestart=always\n";
        let found = values(text, "ExecStart");
        assert_eq!(found.len(), 1);
        assert_eq!(
            words(&found[0]),
            ["/usr/local/bin/k3s", "server", "--data-dir", "/data/k 3s"]
        );
        assert_eq!(values("A=1\nA=\nA=2\n", "A"), ["2"]);
        assert_eq!(values("A=1 \\", "A"), ["1"]);
    }

    #[test]
    fn words_are_split_as_a_shell_does() {
        assert_eq!(
            words("a  \"b c\"d 'e\\f' g\\ h ''"),
            ["a", "b cd", "e\\f", "g h", ""]
        );
        assert_eq!(words("\"open"), ["open"]);
        assert!(words("  ").is_empty());
    }

    #[test]
    fn environments_are_assignments() {
        let found = environment("# comment\nK3S_TOKEN='a b'\nPATH=/opt/bin:/usr/bin\nnothing\n");
        assert_eq!(
            found,
            [
                ("K3S_TOKEN".to_owned(), "a b".to_owned()),
                ("PATH".to_owned(), "/opt/bin:/usr/bin".to_owned())
            ]
        );
    }
}
