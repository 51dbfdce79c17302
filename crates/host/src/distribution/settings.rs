//! How RKE2, K3s and the kubelet were told what to do: flags, environment, configuration files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pitcrew_core::Reading;
use pitcrew_core::ports::HostFs;
use serde_json::Value;

use crate::{read, systemd};

/// The command of a unit, and its environment.
#[derive(Debug, Default)]
pub(crate) struct Command {
    /// Program and arguments.
    words: Vec<String>,
    environment: BTreeMap<String, String>,
}

impl Command {
    pub(super) fn of(fs: &dyn HostFs, unit: &str) -> Self {
        let Reading::Value(text) = systemd::unit_text(fs, unit) else {
            return Self::default();
        };
        let name = unit.trim_end_matches(".service");
        let mut environment = BTreeMap::new();
        for assignments in systemd::values(&text, "Environment") {
            let words = systemd::words(&assignments);
            let split = words.iter().filter_map(|word| word.split_once('='));
            environment.extend(split.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        for file in systemd::values(&text, "EnvironmentFile") {
            let path = file
                .trim_start_matches('-')
                .replace("%N", name)
                .replace("%n", unit);
            // Mostly 0600: what can't be read can't be known, and flags and files say most.
            if let Reading::Value(text) = read::text(fs, path) {
                environment.extend(systemd::environment(&text));
            }
        }
        let words = systemd::values(&text, "ExecStart").pop().unwrap_or_default();
        Self {
            words: systemd::words(words.trim_start_matches(['-', '@', '+', '!', ':'])),
            environment,
        }
    }

    /// `server` or `agent`.
    pub(super) fn subcommand(&self) -> Option<&str> {
        self.words.get(1).map(String::as_str)
    }

    /// Values of all flags by name without dashes. A flag without a value is `true`.
    fn flags(&self) -> BTreeMap<String, Vec<String>> {
        flags(self.words.iter().skip(2).map(String::as_str))
    }
}

/// Flags as both Go's libraries take them: `--name=value`, `--name value`, `--name`.
fn flags<'a>(words: impl Iterator<Item = &'a str>) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        let Some(flag) = word.strip_prefix('-') else {
            continue;
        };
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => match words.next_if(|next| !next.starts_with('-')) {
                Some(value) => (flag, value.to_owned()),
                None => (flag, "true".to_owned()),
            },
        };
        let name = match name {
            "d" => "data-dir",
            "c" => "config",
            name => name,
        };
        found.entry(name.to_owned()).or_default().push(value);
    }
    found
}

/// Settings by name, as in the configuration file.
///
/// The supervisor puts what its files say before the flags of its command line (`pkg/configfilearg` of K3s): a flag
/// goes before a file, a list is that of the files and then that of the flags, and a variable counts where neither
/// says anything. Which file it is the variable tells before the flag.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings(BTreeMap<String, Vec<String>>);

/// Settings that have a variable, and what it ends in behind `RKE2_` or `K3S_`.
const VARIABLES: [(&str, &str); 4] = [
    ("data-dir", "DATA_DIR"),
    ("selinux", "SELINUX"),
    ("profile", "CIS_PROFILE"),
    ("config", "CONFIG_FILE"),
];

impl Settings {
    /// Settings of RKE2 or K3s; failed where a configuration file is there and can't be read.
    pub(super) fn gather(fs: &dyn HostFs, name: &str, command: &Command) -> Reading<Self> {
        let flags = command.flags();
        let prefix = name.to_uppercase();
        let variables: BTreeMap<String, Vec<String>> = VARIABLES
            .iter()
            .filter_map(|(setting, ending)| {
                let value = command.environment.get(&format!("{prefix}_{ending}"))?;
                Some(((*setting).to_owned(), vec![value.clone()]))
            })
            .collect();
        let given = variables.get("config").or_else(|| flags.get("config"));
        let main = given
            .and_then(|values| values.last().map(PathBuf::from))
            .unwrap_or_else(|| format!("/etc/rancher/{name}/config.yaml").into());
        let mut settings = Self(variables);
        let mut files = vec![main.clone()];
        // The directory beside the file is named after it.
        let dir = PathBuf::from(format!("{}.d", main.display()));
        match read::names(fs, &dir) {
            Reading::Value(names) => files.extend(
                names
                    .iter()
                    .filter(|name| read::ends_in(name, "yaml") || read::ends_in(name, "yml"))
                    .map(|name| dir.join(name)),
            ),
            Reading::NotSupported => {}
            Reading::Failed(why) => return Reading::Failed(why),
        }
        for file in files {
            match read::text(fs, &file) {
                Reading::Value(text) => {
                    if let Err(why) = settings.add_file(&text) {
                        return Reading::Failed(format!("`{}` can't be read: {why}", file.display()));
                    }
                }
                Reading::NotSupported => {}
                Reading::Failed(why) => return Reading::Failed(why),
            }
        }
        for (name, values) in flags {
            settings.0.entry(name).or_default().extend(values);
        }
        if let Some(path) = command.environment.get("PATH") {
            settings.0.insert(PATH.to_owned(), vec![path.clone()]);
        }
        Reading::Value(settings)
    }

    /// The kubelet's flags, as kubeadm writes them.
    pub(super) fn of_kubelet(fs: &dyn HostFs, file: &str) -> Reading<Self> {
        read::text(fs, file).map(|text| {
            let words: Vec<String> = systemd::environment(&text)
                .into_iter()
                .filter(|(name, _)| name == "KUBELET_KUBEADM_ARGS")
                .flat_map(|(_, value)| systemd::words(&value))
                .collect();
            let flags = flags(words.iter().map(String::as_str));
            let all = flags
                .iter()
                .flat_map(|(name, values)| values.iter().map(move |value| format!("{name}={value}")));
            Self([("kubelet-arg".to_owned(), all.collect())].into())
        })
    }

    /// Adds what a configuration file says: a key replaces an earlier one, unless it ends in `+`.
    pub fn add_file(&mut self, text: &str) -> Result<(), String> {
        if text.trim().is_empty() {
            return Ok(());
        }
        let document: Value = read::yaml(text)?;
        let Value::Object(entries) = document else {
            return if document.is_null() {
                Ok(())
            } else {
                Err("it is no mapping".to_owned())
            };
        };
        for (key, value) in entries {
            let values = match value {
                Value::Array(values) => values.iter().filter_map(scalar).collect(),
                value => scalar(&value).into_iter().collect(),
            };
            match key.strip_suffix('+') {
                Some(name) => self.0.entry(name.to_owned()).or_default().extend(values),
                None => {
                    self.0.insert(key, values);
                }
            }
        }
        Ok(())
    }

    /// The value of a setting; the last one where it is a list.
    pub fn last(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.last().map(String::as_str)
    }

    /// The value of a flag that is handed on, such as `root-dir` of `kubelet-arg`.
    pub fn argument(&self, name: &str, flag: &str) -> Option<&str> {
        let values = self.0.get(name)?.iter().rev();
        values
            .filter_map(|value| value.trim_start_matches('-').split_once('='))
            .find(|(known, _)| *known == flag)
            .map(|(_, value)| value)
    }

    /// `PATH` of the unit, where its environment sets one.
    pub(crate) fn path(&self) -> Option<&str> {
        self.last(PATH)
    }
}

/// Name that no setting can have.
const PATH: &str = "$PATH";

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The value of a flag in a manifest of a static pod, `- --flag=value`.
pub(super) fn flag_in_manifest(text: &str, flag: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let word = line.trim().strip_prefix("- ")?.trim().trim_matches(['"', '\'']);
        Some(word.strip_prefix(flag)?.strip_prefix('=')?.to_owned())
    })
}

/// The image of a container in a manifest of a static pod, of which this is the name.
pub(super) fn image_in_manifest(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let image = line
            .trim()
            .trim_start_matches("- ")
            .strip_prefix("image:")?
            .trim();
        let image = image.trim_matches(['"', '\'']);
        let file = Path::new(image).file_name()?.to_string_lossy().into_owned();
        file.starts_with(name).then(|| image.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_in_all_their_spellings() {
        let words = [
            "--data-dir",
            "/a",
            "--selinux",
            "--profile=cis",
            "-d",
            "/b",
            "--kubelet-arg=root-dir=/k",
        ];
        let found = flags(words.into_iter());
        assert_eq!(found["data-dir"], ["/a", "/b"]);
        assert_eq!(found["selinux"], ["true"]);
        assert_eq!(found["profile"], ["cis"]);
        assert_eq!(found["kubelet-arg"], ["root-dir=/k"]);
    }

    #[test]
    fn a_later_file_replaces_and_a_plus_appends() {
        let mut settings = Settings::default();
        settings
            .add_file("profile: cis\nselinux: true\nkubelet-arg:\n  - root-dir=/a\n")
            .unwrap();
        settings
            .add_file("profile: etcd\nkubelet-arg+:\n  - \"v=2\"\n")
            .unwrap();
        settings.add_file("# nothing\n").unwrap();
        assert_eq!(settings.last("profile"), Some("etcd"));
        assert_eq!(settings.last("selinux"), Some("true"));
        assert_eq!(settings.argument("kubelet-arg", "root-dir"), Some("/a"));
        assert_eq!(settings.argument("kubelet-arg", "v"), Some("2"));
        assert!(settings.add_file("- a\n").is_err());
    }

    #[test]
    fn flags_and_images_of_static_pods_are_found() {
        let text = "spec:\n  containers:\n  - command:\n    - kube-apiserver\n    - --admission-control-config-file=/etc/a.yaml\n    image: registry.k8s.io/kube-apiserver:v1.31.2\n";
        assert_eq!(
            flag_in_manifest(text, "--admission-control-config-file").as_deref(),
            Some("/etc/a.yaml")
        );
        assert_eq!(
            image_in_manifest(text, "kube-apiserver").as_deref(),
            Some("registry.k8s.io/kube-apiserver:v1.31.2")
        );
    }
}
