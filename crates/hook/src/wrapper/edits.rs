//! CDI edits, made to an OCI configuration as the CDI library makes them; every field that isn't concerned stays.

use serde_json::{Map, Value, json};

use super::spec::{DeviceNode, Edits, Hook, Mount};

/// Why an edit can't be made.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The configuration has something else where a list or an object must be.
    #[error("the container's configuration has no {0} where one must be")]
    Shape(String),
    /// A device of the specification that the host hasn't.
    #[error("the CDI specification names the device {path}: {reason}")]
    Device {
        /// On the host.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A hook at a point that OCI does not have.
    #[error("the CDI specification names the hook point `{0}`, which is not one of OCI's")]
    HookPoint(String),
    /// Fields that are newer than this program.
    #[error("the CDI specification uses {0}, which only containerd's own CDI support applies")]
    Unsupported(&'static str),
}

/// Hooks of NVIDIA's older toolkit, which would give the GPUs a second time.
const LEGACY_HOOKS: [&str; 2] = ["nvidia-container-runtime-hook", "nvidia-container-toolkit"];
const HOOK_POINTS: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

/// Makes all edits, in their order. Made twice they change nothing more.
pub(super) fn apply(config: &mut Value, edits: &[&Edits]) -> Result<(), EditError> {
    remove_legacy_hooks(config);
    for edits in edits {
        if edits.intel_rdt.is_some() {
            return Err(EditError::Unsupported("intelRdt"));
        }
        if !edits.net_devices.is_empty() {
            return Err(EditError::Unsupported("netDevices"));
        }
        for pair in &edits.env {
            add_env(list(config, &["process", "env"])?, pair);
        }
        for node in &edits.device_nodes {
            add_device(config, node)?;
        }
        for mount in &edits.mounts {
            add_mount(list(config, &["mounts"])?, mount);
        }
        for hook in &edits.hooks {
            add_hook(config, hook)?;
        }
        for gid in edits.additional_gids.iter().filter(|gid| **gid != 0) {
            let gids = list(config, &["process", "user", "additionalGids"])?;
            if !gids.iter().any(|found| found == gid) {
                gids.push(json!(gid));
            }
        }
    }
    if edits.iter().any(|edits| !edits.mounts.is_empty()) {
        // What is mounted below another comes after it.
        let depth = |mount: &Value| {
            mount["destination"]
                .as_str()
                .map_or(0, |path| path.split('/').filter(|part| !part.is_empty()).count())
        };
        list(config, &["mounts"])?.sort_by_key(depth);
    }
    Ok(())
}

/// The list at a path of keys, made where it is missing.
fn list<'a>(config: &'a mut Value, keys: &[&str]) -> Result<&'a mut Vec<Value>, EditError> {
    let shape = || EditError::Shape(keys.join("."));
    let mut here = config;
    for key in keys {
        if here.is_null() {
            *here = Value::Object(Map::new());
        }
        here = here
            .as_object_mut()
            .ok_or_else(shape)?
            .entry(*key)
            .or_insert(Value::Null);
    }
    if here.is_null() {
        *here = Value::Array(Vec::new());
    }
    here.as_array_mut().ok_or_else(shape)
}

fn add_env(env: &mut Vec<Value>, pair: &str) {
    let name = pair.split('=').next().unwrap_or_default();
    let is_same = |found: &Value| {
        found
            .as_str()
            .is_some_and(|found| found.split('=').next() == Some(name))
    };
    env.retain(|found| !is_same(found));
    env.push(json!(pair));
}

fn add_mount(mounts: &mut Vec<Value>, mount: &Mount) {
    mounts.retain(|found| found["destination"] != mount.container_path.as_str());
    let mut added =
        json!({"destination": mount.container_path, "source": mount.host_path, "options": mount.options});
    if let Some(kind) = &mount.r#type {
        added["type"] = json!(kind);
    }
    mounts.push(added);
}

fn add_hook(config: &mut Value, hook: &Hook) -> Result<(), EditError> {
    if !HOOK_POINTS.contains(&hook.point.as_str()) {
        return Err(EditError::HookPoint(hook.point.clone()));
    }
    let mut added = json!({"path": hook.path, "args": hook.args});
    if !hook.env.is_empty() {
        added["env"] = json!(hook.env);
    }
    if let Some(timeout) = hook.timeout {
        added["timeout"] = json!(timeout);
    }
    let hooks = list(config, &["hooks", &hook.point])?;
    // containerd may have made the same edits before.
    if !hooks.contains(&added) {
        hooks.push(added);
    }
    Ok(())
}

fn remove_legacy_hooks(config: &mut Value) {
    let Some(hooks) = config
        .pointer_mut("/hooks/prestart")
        .and_then(Value::as_array_mut)
    else {
        return;
    };
    hooks.retain(|hook| {
        let name = hook["path"].as_str().and_then(|path| path.rsplit('/').next());
        !name.is_some_and(|name| LEGACY_HOOKS.contains(&name))
    });
}

fn add_device(config: &mut Value, node: &DeviceNode) -> Result<(), EditError> {
    let (kind, major, minor) = identity(node)?;
    let mut device = json!({"path": node.path, "type": kind});
    if kind != "p" {
        device["major"] = json!(major);
        device["minor"] = json!(minor);
    }
    if let Some(mode) = node.file_mode {
        device["fileMode"] = json!(mode);
    }
    // Who the container runs as owns the node, where the specification does not say otherwise.
    for (key, said) in [("uid", node.uid), ("gid", node.gid)] {
        let process = config["process"]["user"][key].as_u64().filter(|id| *id > 0);
        if let Some(id) = said.map(u64::from).or(process) {
            device[key] = json!(id);
        }
    }
    let devices = list(config, &["linux", "devices"])?;
    devices.retain(|found| found["path"] != node.path.as_str());
    devices.push(device);
    if matches!(kind.as_str(), "b" | "c") {
        let access = node
            .permissions
            .as_deref()
            .filter(|access| !access.is_empty())
            .unwrap_or("rwm");
        let rule = json!({"allow": true, "type": kind, "major": major, "minor": minor, "access": access});
        let rules = list(config, &["linux", "resources", "devices"])?;
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    Ok(())
}

/// Type and numbers, of the specification or of the host's node.
fn identity(node: &DeviceNode) -> Result<(String, u32, u32), EditError> {
    if let (Some(kind), Some(major)) = (&node.r#type, node.major)
        && major != 0
    {
        return Ok((kind.clone(), major, node.minor.unwrap_or(0)));
    }
    if node.r#type.as_deref() == Some("p") {
        return Ok(("p".to_owned(), 0, 0));
    }
    let path = node
        .host_path
        .as_deref()
        .filter(|path| !path.is_empty())
        .unwrap_or(&node.path);
    let failed = |reason: String| EditError::Device {
        path: path.to_owned(),
        reason,
    };
    let found = rustix::fs::stat(path).map_err(|errno| failed(std::io::Error::from(errno).to_string()))?;
    let kind = match rustix::fs::FileType::from_raw_mode(found.st_mode) {
        rustix::fs::FileType::CharacterDevice => "c",
        rustix::fs::FileType::BlockDevice => "b",
        rustix::fs::FileType::Fifo => "p",
        _ => return Err(failed("it is not a device".to_owned())),
    };
    if node
        .r#type
        .as_deref()
        .is_some_and(|said| !said.is_empty() && said != kind && !(said == "u" && kind == "c"))
    {
        return Err(failed(format!(
            "it is of another type than the `{kind}` on the host"
        )));
    }
    let said = node.major.filter(|major| *major != 0);
    let (major, minor) = said.map_or_else(
        || (rustix::fs::major(found.st_rdev), rustix::fs::minor(found.st_rdev)),
        |major| (major, node.minor.unwrap_or(0)),
    );
    Ok((kind.to_owned(), major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edits() -> Edits {
        serde_json::from_value(json!({
            "env": ["A=new", "B=b"],
            "deviceNodes": [
                {"path": "/dev/gpu", "hostPath": "/dev/null", "permissions": "rw"},
                {"path": "/dev/given", "type": "c", "major": 195, "minor": 7, "fileMode": 0o600, "gid": 44},
            ],
            "mounts": [
                {"hostPath": "/lib/x.so", "containerPath": "/usr/lib/x.so", "options": ["ro", "rbind"]},
                {"hostPath": "/y", "containerPath": "/y"},
            ],
            "hooks": [{"hookName": "createContainer", "path": "/h", "args": ["h", "x"], "timeout": 5}],
            "additionalGids": [44, 0],
        }))
        .unwrap()
    }

    #[test]
    fn edits_are_made_once_and_everything_else_stays() {
        let mut config = json!({
            "ociVersion": "1.2.0",
            "process": {"env": ["A=old", "C=c"], "user": {"uid": 1000, "gid": 0}, "rlimits": [{"hard": u64::MAX}]},
            "mounts": [{"destination": "/usr/lib/x.so/deep", "source": "d"}, {"destination": "/y", "source": "old"}, {"destination": "/z", "source": "z"}],
            "hooks": {"prestart": [{"path": "/usr/bin/nvidia-container-runtime-hook"}, {"path": "/other"}]},
            "linux": {"resources": {"devices": [{"allow": false, "access": "rwm"}]}, "seccomp": {"x": 1.5}},
            "unknown": [null],
        });
        let edits = edits();
        apply(&mut config, &[&edits]).unwrap();
        let expected = json!({
            "ociVersion": "1.2.0",
            "process": {
                "env": ["C=c", "A=new", "B=b"],
                "user": {"uid": 1000, "gid": 0, "additionalGids": [44]},
                "rlimits": [{"hard": u64::MAX}],
            },
            "mounts": [
                {"destination": "/z", "source": "z"},
                {"destination": "/y", "source": "/y", "options": []},
                {"destination": "/usr/lib/x.so", "source": "/lib/x.so", "options": ["ro", "rbind"]},
                {"destination": "/usr/lib/x.so/deep", "source": "d"},
            ],
            "hooks": {
                "prestart": [{"path": "/other"}],
                "createContainer": [{"path": "/h", "args": ["h", "x"], "timeout": 5}],
            },
            "linux": {
                "devices": [
                    {"path": "/dev/gpu", "type": "c", "major": 1, "minor": 3, "uid": 1000},
                    {"path": "/dev/given", "type": "c", "major": 195, "minor": 7, "fileMode": 0o600, "uid": 1000, "gid": 44},
                ],
                "resources": {"devices": [
                    {"allow": false, "access": "rwm"},
                    {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"},
                    {"allow": true, "type": "c", "major": 195, "minor": 7, "access": "rwm"},
                ]},
                "seccomp": {"x": 1.5},
            },
            "unknown": [null],
        });
        assert_eq!(config, expected);
        apply(&mut config, &[&edits]).unwrap();
        assert_eq!(config, expected);
    }

    #[test]
    fn an_empty_configuration_gets_all_that_it_lacks() {
        let mut config = json!({"process": null});
        apply(&mut config, &[&edits()]).unwrap();
        assert_eq!(config["process"]["env"], json!(["A=new", "B=b"]));
        assert_eq!(config["linux"]["devices"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn what_can_not_be_applied_is_refused() {
        let refused = |edits: Value| {
            let edits: Edits = serde_json::from_value(edits).unwrap();
            apply(&mut json!({"mounts": 5}), &[&edits])
                .unwrap_err()
                .to_string()
        };
        assert!(refused(json!({"intelRdt": {"closID": "x"}})).contains("intelRdt"));
        assert!(refused(json!({"netDevices": [{}]})).contains("netDevices"));
        assert!(
            refused(json!({"mounts": [{"hostPath": "/a", "containerPath": "/b"}]})).contains("no mounts")
        );
        assert!(refused(json!({"hooks": [{"hookName": "never", "path": "/h"}]})).contains("`never`"));
        assert!(refused(json!({"deviceNodes": [{"path": "/dev/not-there"}]})).contains("/dev/not-there"));
        assert!(refused(json!({"deviceNodes": [{"path": "/etc/hostname"}]})).contains("not a device"));
    }
}
