//! What a container asks for: device names, from the sources that count for it.

use std::fmt;

use serde_json::Value;

use super::Settings;

/// A device's full name, as `nvidia.com/gpu=0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Vendor and class, as `nvidia.com/gpu`.
    pub kind: String,
    /// The device within its kind.
    pub device: String,
}

/// A request that names no device.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NameError {
    /// Not `vendor/class=name`.
    #[error("{origin} asks for `{name}`, which is not a CDI device name such as nvidia.com/gpu=0")]
    Form {
        /// Where the request stands.
        origin: &'static str,
        /// What it says.
        name: String,
    },
    /// More names than there can be devices.
    #[error("{0} asks for more than {MOST} devices")]
    TooMany(&'static str),
}

/// Names at most: 16 GPUs of 7 MIG devices are 112.
const MOST: usize = 1024;
const ENV: &str = "NVIDIA_VISIBLE_DEVICES";
const ANNOTATION: &str = "cdi.k8s.io/";
/// Where the strategy `volume-mounts` of a device plugin mounts `/dev/null`. `/var/run` is a link to `/run` in images,
/// but the text is what a plugin writes.
const MOUNTS: &str = "/var/run/nvidia-container-devices/";

impl Name {
    /// Reads `vendor/class=name`.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, device) = text.split_once('=')?;
        let (vendor, class) = kind.split_once('/')?;
        let is_part = |part: &str, more: &str| {
            let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
            let inner = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
            ends(part.chars().next()) && ends(part.chars().next_back()) && part.chars().all(inner)
        };
        let is_name = is_part(vendor, "_-.") && is_part(class, "_-.") && is_part(device, "_-.:");
        is_name.then(|| Self {
            kind: kind.to_owned(),
            device: device.to_owned(),
        })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind, self.device)
    }
}

/// What a container asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The devices, each once, in the order in which they are named.
    pub names: Vec<Name>,
    /// Whether the environment alone asks: a wish, where others are what the scheduler gave.
    pub by_env: bool,
    /// What was passed over, and why.
    pub remarks: Vec<String>,
}

/// The request in an OCI configuration. The first source that names a device counts: annotations, mounts, environment.
pub fn requested(config: &Value, settings: &Settings) -> Result<Request, NameError> {
    let mut request = Request::default();
    if settings.accept_annotations {
        request.names = annotations(config)?;
    }
    if request.names.is_empty() && settings.accept_volume_mounts {
        request.names = mounts(config, settings)?;
    }
    if !request.names.is_empty() {
        return Ok(request);
    }
    let Some(value) = environment(config) else {
        return Ok(request);
    };
    if !settings.accept_env_when_unprivileged && !is_privileged(config) {
        request.remarks.push(format!(
            "{ENV} is ignored: the container is not privileged, and GPUs come from the scheduler"
        ));
        return Ok(request);
    }
    request.names = names(value, ENV, settings)?;
    request.by_env = true;
    Ok(request)
}

fn annotations(config: &Value) -> Result<Vec<Name>, NameError> {
    let mut found = Vec::new();
    for (key, value) in config["annotations"].as_object().into_iter().flatten() {
        if key.starts_with(ANNOTATION) {
            for name in value.as_str().unwrap_or_default().split(',') {
                let source = "a cdi.k8s.io annotation";
                let parsed = Name::parse(name.trim());
                let parsed = parsed.ok_or_else(|| NameError::Form {
                    origin: source,
                    name: name.to_owned(),
                })?;
                add(&mut found, parsed, source)?;
            }
        }
    }
    Ok(found)
}

fn mounts(config: &Value, settings: &Settings) -> Result<Vec<Name>, NameError> {
    let mut found = Vec::new();
    let source = "a mount in /var/run/nvidia-container-devices";
    for mount in config["mounts"].as_array().into_iter().flatten() {
        let destination = mount["destination"].as_str().unwrap_or_default();
        let Some(id) = destination
            .strip_prefix(MOUNTS)
            .filter(|_| mount["source"] == "/dev/null")
        else {
            continue;
        };
        let qualified = id.strip_prefix("cdi/").and_then(|rest| rest.rsplit_once('/'));
        let text = qualified.map_or_else(|| id.to_owned(), |(kind, name)| format!("{kind}={name}"));
        for name in names(&text, source, settings)? {
            add(&mut found, name, source)?;
        }
    }
    Ok(found)
}

/// What the environment asks for, if it does. An image of before 2017 says nothing and means all.
fn environment(config: &Value) -> Option<&str> {
    let all = || {
        config["process"]["env"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
    };
    let value = |name: &str| {
        all()
            .filter_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
            .next_back()
    };
    let is_old_image = || value("CUDA_VERSION").is_some() && value("NVIDIA_REQUIRE_CUDA").is_none();
    let asked = value(ENV).or_else(|| is_old_image().then_some("all"))?.trim();
    (!asked.is_empty() && asked != "void").then_some(asked)
}

/// A list of names, full ones or those of the default kind.
fn names(list: &str, source: &'static str, settings: &Settings) -> Result<Vec<Name>, NameError> {
    let mut found = Vec::new();
    for text in list.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        let parsed = Name::parse(text).or_else(|| Name::parse(&format!("{}={text}", settings.default_kind)));
        let parsed = parsed.ok_or_else(|| NameError::Form {
            origin: source,
            name: text.to_owned(),
        })?;
        add(&mut found, parsed, source)?;
    }
    Ok(found)
}

fn add(found: &mut Vec<Name>, name: Name, source: &'static str) -> Result<(), NameError> {
    if !found.contains(&name) {
        found.push(name);
    }
    if found.len() > MOST {
        Err(NameError::TooMany(source))
    } else {
        Ok(())
    }
}

/// Whether a container may use every device of the host anyway: `CAP_SYS_ADMIN`, and a device cgroup that allows all.
/// Then naming a GPU takes nothing past the scheduler that it could not take by itself.
fn is_privileged(config: &Value) -> bool {
    let bounding = config["process"]["capabilities"]["bounding"].as_array();
    let is_admin = bounding.is_some_and(|all| all.iter().any(|name| name == "CAP_SYS_ADMIN"));
    let is_any = |value: &Value| value.is_null() || value == -1;
    let mut allowed = false;
    for rule in config["linux"]["resources"]["devices"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let all_kinds = rule["type"].is_null() || rule["type"] == "a" || rule["type"] == "";
        let all_ways = rule["access"]
            .as_str()
            .is_none_or(|access| "rwm".chars().all(|way| access.contains(way)));
        if all_kinds && is_any(&rule["major"]) && is_any(&rule["minor"]) && all_ways {
            allowed = rule["allow"] == true;
        }
    }
    is_admin && allowed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn config(env: &[&str], privileged: bool) -> Value {
        let rules = if privileged {
            json!([{"allow": true, "access": "rwm"}])
        } else {
            json!([{"allow": false, "access": "rwm"}])
        };
        let bounding = if privileged {
            json!(["CAP_CHOWN", "CAP_SYS_ADMIN"])
        } else {
            json!(["CAP_CHOWN"])
        };
        json!({
            "process": {"env": env, "capabilities": {"bounding": bounding}},
            "linux": {"resources": {"devices": rules}},
        })
    }

    fn names_of(config: &Value, settings: &Settings) -> Vec<String> {
        requested(config, settings)
            .unwrap()
            .names
            .iter()
            .map(Name::to_string)
            .collect()
    }

    #[test]
    fn env_counts_for_privileged_containers_or_where_the_owner_opens_it() {
        let open = Settings {
            accept_env_when_unprivileged: true,
            ..Settings::default()
        };
        let asks = ["NVIDIA_VISIBLE_DEVICES=0, GPU-1,MIG-2,acme.com/x=y"];
        let all = [
            "nvidia.com/gpu=0",
            "nvidia.com/gpu=GPU-1",
            "nvidia.com/gpu=MIG-2",
            "acme.com/x=y",
        ];
        assert_eq!(names_of(&config(&asks, true), &Settings::default()), all);
        assert_eq!(names_of(&config(&asks, false), &open), all);
        let request = requested(&config(&asks, false), &Settings::default()).unwrap();
        assert!(request.names.is_empty() && request.remarks.len() == 1);
        let mut only_admin = config(&asks, true);
        only_admin["linux"]["resources"]["devices"] =
            json!([{"allow": true}, {"allow": false, "access": "rwm"}]);
        assert!(
            names_of(&only_admin, &Settings::default()).is_empty(),
            "its cgroup keeps it from devices"
        );
    }

    #[test]
    fn void_empty_and_unset_ask_for_nothing_and_old_images_for_all() {
        for env in [
            &["NVIDIA_VISIBLE_DEVICES=void"][..],
            &["NVIDIA_VISIBLE_DEVICES="],
            &[],
            &["NVIDIA_VISIBLE_DEVICES=0", "NVIDIA_VISIBLE_DEVICES=void"],
        ] {
            assert_eq!(
                requested(&config(env, true), &Settings::default()),
                Ok(Request::default())
            );
        }
        assert_eq!(
            names_of(&config(&["CUDA_VERSION=8.0"], true), &Settings::default()),
            ["nvidia.com/gpu=all"]
        );
        let newer = ["CUDA_VERSION=12", "NVIDIA_REQUIRE_CUDA=cuda>=12"];
        assert!(names_of(&config(&newer, true), &Settings::default()).is_empty());
    }

    #[test]
    fn annotations_come_before_mounts_and_those_before_env() {
        let mut asks = config(&["NVIDIA_VISIBLE_DEVICES=2"], true);
        asks["mounts"] = json!([
            {"destination": "/var/run/nvidia-container-devices/GPU-1", "source": "/dev/null"},
            {"destination": "/var/run/nvidia-container-devices/cdi/k8s.device-plugin.nvidia.com/gpu/GPU-3", "source": "/dev/null"},
            {"destination": "/var/run/nvidia-container-devices/GPU-4", "source": "/etc/passwd"},
        ]);
        let mounts = Settings {
            accept_volume_mounts: true,
            ..Settings::default()
        };
        assert_eq!(names_of(&asks, &Settings::default()), ["nvidia.com/gpu=2"]);
        assert_eq!(
            names_of(&asks, &mounts),
            ["nvidia.com/gpu=GPU-1", "k8s.device-plugin.nvidia.com/gpu=GPU-3"]
        );
        asks["annotations"] =
            json!({"cdi.k8s.io/nvidia-device-plugin_x": "a.com/b=c,a.com/b=d", "other": "e"});
        assert_eq!(names_of(&asks, &mounts), ["a.com/b=c", "a.com/b=d"]);
        asks["annotations"] = json!({"cdi.k8s.io/x": "0"});
        assert!(matches!(requested(&asks, &mounts), Err(NameError::Form { .. })));
    }

    proptest! {
        #[test]
        fn what_parses_as_a_name_prints_alike(text in "\\PC{0,40}|[a-z.]{1,6}/[a-z]{1,4}=[a-zA-Z0-9:._-]{0,8}") {
            if let Some(name) = Name::parse(&text) {
                prop_assert_eq!(name.to_string(), text);
            }
        }

        #[test]
        fn an_unprivileged_container_gets_nothing_by_any_env(env in proptest::collection::vec("(NVIDIA_VISIBLE_DEVICES|CUDA_VERSION)=\\PC{0,12}", 0..4)) {
            let env: Vec<&str> = env.iter().map(String::as_str).collect();
            let request = requested(&config(&env, false), &Settings::default()).unwrap();
            prop_assert!(request.names.is_empty());
        }
    }
}
