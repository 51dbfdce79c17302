//! From the text of a configuration to its meaning.

use std::path::PathBuf;

use super::names::{NameRule, NamingRules, Pattern, resource_name};
use super::tree::{Place, Reader, parse};
use super::{
    Config, ConfigError, DeviceDiscovery, DeviceListStrategy, DeviceRef, Devices, FEWEST_REPLICAS, Flags,
    GfdFlags, Imex, Interval, MOST_REPLICAS, PluginFlags, Shared, SharedResource, SharingRules,
};
use crate::document::Tree;

/// Reads a configuration; see [`Config::parse`].
pub(super) fn read(text: &str) -> Result<Config, ConfigError> {
    let tree = parse(text)?;
    let mut reader = Reader::default();
    let top = Place::top(&tree);
    let fields = reader.fields(&top, &["version", "flags", "resources", "sharing", "imex"]);
    if let Some(place) = fields.get("version") {
        version(&mut reader, place);
    }
    let mut config = Config::default();
    if let Some(place) = fields.get("flags") {
        config.flags = flags(&mut reader, place);
    }
    if let Some(place) = fields.get("resources") {
        config.names = names(&mut reader, place);
    }
    if let Some(place) = fields.get("sharing") {
        config.sharing = sharing(&mut reader, place);
    }
    if let Some(place) = fields.get("imex") {
        config.imex = imex(&mut reader, place);
    }
    if reader.problems.is_empty() {
        config.remarks = reader.remarks;
        Ok(config)
    } else {
        reader.problems.sort_by_key(|problem| problem.line);
        Err(ConfigError::Invalid(reader.problems))
    }
}

fn version(reader: &mut Reader, place: &Place<'_>) {
    match place.tree {
        Tree::Text(text) if matches!(text.as_str(), "" | "v1") => {}
        Tree::Text(text) => reader.problem(
            place,
            format!("is `{text}`, a version that isn't known: only `v1` is"),
        ),
        _ => reader.problem(place, "must be `v1`, the only version there is"),
    }
}

/// Puts a value in its place, where there is one.
fn put<T>(to: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *to = value;
    }
}

/// A path; an empty text is none.
fn path(reader: &mut Reader, place: &Place<'_>) -> Option<PathBuf> {
    let text = reader.text(place)?;
    if text.is_empty() {
        return None;
    }
    if !text.starts_with('/') {
        reader.problem(place, format!("is `{text}`, which is no absolute path"));
        return None;
    }
    Some(PathBuf::from(text))
}

/// A word of a few; an empty text is none, as Helm charts leave what isn't set.
fn word<T>(reader: &mut Reader, place: &Place<'_>) -> Option<T>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    match place.tree {
        Tree::Text(text) if text.is_empty() => None,
        _ => reader.parsed(place),
    }
}

fn flags(reader: &mut Reader, place: &Place<'_>) -> Flags {
    let mut flags = Flags::default();
    let fields = reader.fields(
        place,
        &[
            "migStrategy",
            "failOnInitError",
            "mpsRoot",
            "nvidiaDriverRoot",
            "nvidiaDevRoot",
            "gdrcopyEnabled",
            "gdsEnabled",
            "mofedEnabled",
            "useNodeFeatureAPI",
            "deviceDiscoveryStrategy",
            "plugin",
            "gfd",
        ],
    );
    if let Some(place) = fields.get("migStrategy") {
        put(&mut flags.mig_strategy, word(reader, place));
    }
    for (name, to) in [
        ("mpsRoot", &mut flags.mps_root),
        ("nvidiaDriverRoot", &mut flags.driver_root),
        ("nvidiaDevRoot", &mut flags.dev_root),
    ] {
        if let Some(place) = fields.get(name) {
            *to = path(reader, place);
        }
    }
    for (name, to) in [
        ("failOnInitError", &mut flags.fail_on_init_error),
        ("gdrcopyEnabled", &mut flags.gdrcopy),
        ("gdsEnabled", &mut flags.gds),
        ("mofedEnabled", &mut flags.mofed),
    ] {
        if let Some(place) = fields.get(name) {
            put(to, reader.flag(place));
        }
    }
    if let Some(place) = fields.get("useNodeFeatureAPI") {
        flags.use_node_feature_api = reader.flag(place);
    }
    if let Some(place) = fields.get("deviceDiscoveryStrategy") {
        put(&mut flags.device_discovery, word(reader, place));
        if flags.device_discovery == DeviceDiscovery::Tegra {
            reader.remark(
                place,
                "is `tegra`: Jetsons aren't managed; GPUs are looked for through the driver",
            );
        }
    }
    if let Some(place) = fields.get("plugin") {
        flags.plugin = plugin(reader, place);
    }
    if let Some(place) = fields.get("gfd") {
        flags.gfd = gfd(reader, place);
    }
    flags
}

fn plugin(reader: &mut Reader, place: &Place<'_>) -> PluginFlags {
    let mut flags = PluginFlags::default();
    let fields = reader.fields(
        place,
        &[
            "passDeviceSpecs",
            "deviceListStrategy",
            "deviceIDStrategy",
            "cdiAnnotationPrefix",
            "nvidiaCTKPath",
            "containerDriverRoot",
            "sharedDevicesAllocationPolicy",
        ],
    );
    if let Some(place) = fields.get("passDeviceSpecs") {
        put(&mut flags.pass_device_specs, reader.flag(place));
    }
    if let Some(place) = fields.get("deviceListStrategy") {
        flags.device_list_strategies = device_list_strategies(reader, place);
    }
    if let Some(place) = fields.get("deviceIDStrategy") {
        put(&mut flags.device_id_strategy, word(reader, place));
    }
    if let Some(place) = fields.get("cdiAnnotationPrefix") {
        match reader.text(place) {
            Some("") | None => {}
            Some(prefix) if prefix.ends_with('/') => prefix.clone_into(&mut flags.cdi_annotation_prefix),
            Some(prefix) => reader.problem(
                place,
                format!("is `{prefix}`, which doesn't end with `/` as a prefix of annotations does"),
            ),
        }
    }
    if let Some(place) = fields.get("nvidiaCTKPath") {
        flags.cdi_hook_path = path(reader, place);
    }
    if let Some(place) = fields.get("containerDriverRoot") {
        put(&mut flags.container_driver_root, path(reader, place));
    }
    if let Some(place) = fields.get("sharedDevicesAllocationPolicy") {
        put(&mut flags.sharing_policy, word(reader, place));
    }
    flags
}

/// One word, several with commas as in the environment, or a list of words.
fn device_list_strategies(reader: &mut Reader, place: &Place<'_>) -> Vec<DeviceListStrategy> {
    let mut strategies = Vec::new();
    let mut add = |reader: &mut Reader, place: &Place<'_>, text: &str| match text.trim().parse() {
        Ok(strategy) if strategies.contains(&strategy) => {}
        Ok(strategy) => strategies.push(strategy),
        Err(why) => {
            let why: super::ParseWordError = why;
            reader.problem(place, why.to_string());
        }
    };
    if let Tree::Text(text) = place.tree {
        for word in text.split(',').filter(|word| !word.trim().is_empty()) {
            add(reader, place, word);
        }
    } else {
        for item in reader.items(place, "a text or a list").unwrap_or_default() {
            if let Some(text) = reader.text(&item) {
                add(reader, &item, text);
            }
        }
    }
    strategies
}

fn gfd(reader: &mut Reader, place: &Place<'_>) -> GfdFlags {
    let mut flags = GfdFlags::default();
    let fields = reader.fields(
        place,
        &[
            "oneshot",
            "noTimestamp",
            "sleepInterval",
            "outputFile",
            "machineTypeFile",
        ],
    );
    for (name, to) in [
        ("oneshot", &mut flags.oneshot),
        ("noTimestamp", &mut flags.no_timestamp),
    ] {
        if let Some(place) = fields.get(name) {
            put(to, reader.flag(place));
        }
    }
    if let Some(place) = fields.get("sleepInterval") {
        put(&mut flags.sleep_interval, interval(reader, place));
    }
    if let Some(place) = fields.get("outputFile") {
        flags.output_file = path(reader, place);
    }
    if let Some(place) = fields.get("machineTypeFile") {
        put(&mut flags.machine_type_file, path(reader, place));
    }
    flags
}

fn interval(reader: &mut Reader, place: &Place<'_>) -> Option<Interval> {
    let nanos = match place.tree {
        Tree::Int(nanos) => i64::try_from(*nanos)
            .ok()
            .and_then(|nanos| u64::try_from(nanos).ok()),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "within what an i64 can hold, and the fraction of a nanosecond goes"
        )]
        Tree::Float(nanos) if (0.0..9.2e18).contains(nanos) => Some(*nanos as u64),
        Tree::Float(_) => None,
        _ => return reader.parsed(place),
    };
    if nanos.is_none() {
        reader.problem(
            place,
            "must be a time such as `60s`, or nanoseconds that aren't negative",
        );
    }
    nanos.map(Interval::from_nanos)
}

fn names(reader: &mut Reader, place: &Place<'_>) -> NamingRules {
    let fields = reader.fields(place, &["gpus", "mig", "migs"]);
    let mut rules = |name| {
        fields
            .get(name)
            .map(|place| rules(reader, place))
            .unwrap_or_default()
    };
    NamingRules {
        gpus: rules("gpus"),
        mig: [rules("mig"), rules("migs")].concat(),
    }
}

fn rules(reader: &mut Reader, place: &Place<'_>) -> Vec<NameRule> {
    let mut rules: Vec<NameRule> = Vec::new();
    for item in reader
        .items(place, "a list of patterns and names")
        .unwrap_or_default()
    {
        let fields = reader.fields(&item, &["pattern", "name"]);
        let pattern = fields.get("pattern").and_then(|place| reader.text(place));
        let name = fields.get("name").and_then(|place| name(reader, place));
        match (pattern, name) {
            (Some(""), _) => {
                reader.problem(&item, "has an empty `pattern`, which nothing fits; `*` fits all");
            }
            (Some(pattern), Some(name)) => {
                if rules.iter().any(|rule| rule.pattern == Pattern::new("*")) {
                    reader.remark(&item, "never counts: the pattern `*` before it fits everything");
                }
                rules.push(NameRule {
                    pattern: Pattern::new(pattern),
                    name,
                });
            }
            // What is there and wrong has been told.
            (pattern, name) => {
                for (what, is_there) in [("pattern", pattern.is_some()), ("name", name.is_some())] {
                    if !is_there && fields.get(what).is_none() {
                        reader.problem(&item, format!("has no `{what}`"));
                    }
                }
            }
        }
    }
    rules
}

/// The full name of a resource.
fn name(reader: &mut Reader, place: &Place<'_>) -> Option<String> {
    match resource_name(reader.text(place)?) {
        Ok(name) => Some(name),
        Err(why) => {
            reader.problem(place, why);
            None
        }
    }
}

fn sharing(reader: &mut Reader, place: &Place<'_>) -> SharingRules {
    let fields = reader.fields(place, &["timeSlicing", "mps"]);
    let rules = SharingRules {
        time_slicing: fields.get("timeSlicing").and_then(|place| shared(reader, place)),
        mps: fields.get("mps").and_then(|place| shared(reader, place)),
    };
    if let (Some(place), Some(_)) = (fields.get("timeSlicing"), fields.get("mps")) {
        reader.remark(
            place,
            "doesn't count beside `sharing.mps`: one of the two should go",
        );
    }
    rules
}

fn shared(reader: &mut Reader, place: &Place<'_>) -> Option<Shared> {
    let fields = reader.fields(
        place,
        &["renameByDefault", "failRequestsGreaterThanOne", "resources"],
    );
    let mut flag = |name| fields.get(name).and_then(|place| reader.flag(place));
    let rename_by_default = flag("renameByDefault").unwrap_or(false);
    let fail_requests_greater_than_one = flag("failRequestsGreaterThanOne");
    let Some(list) = fields.get("resources") else {
        if matches!(place.tree, Tree::Map(_)) {
            reader.problem(
                place,
                "shares nothing: it has no `resources`; name one, or leave it out",
            );
        }
        return None;
    };
    let items = reader.items(list, "a list of resources")?;
    if items.is_empty() {
        reader.problem(list, "is empty: name a resource to share, or leave the whole out");
    }
    let mut shared = Shared {
        rename_by_default,
        fail_requests_greater_than_one,
        resources: Vec::new(),
    };
    for item in items {
        let Some(resource) = shared_resource(reader, &item) else {
            continue;
        };
        if let Err(why) = resource_name(&shared.name(&resource)) {
            reader.problem(&item, format!("has a new name that {why}"));
        }
        let taken = |other: &SharedResource| other.name == resource.name && other.devices == Devices::All;
        if shared.resources.iter().any(taken) {
            reader.problem(
                &item,
                format!(
                    "never counts: an entry before it means all devices of `{}`; put it above that one",
                    resource.name
                ),
            );
        }
        shared.resources.push(resource);
    }
    (!shared.resources.is_empty()).then_some(shared)
}

fn shared_resource(reader: &mut Reader, place: &Place<'_>) -> Option<SharedResource> {
    let fields = reader.fields(place, &["name", "rename", "devices", "replicas"]);
    let resource = fields.get("name").and_then(|place| name(reader, place));
    let rename = match fields.get("rename") {
        Some(place) if !matches!(place.tree, Tree::Text(text) if text.is_empty()) => name(reader, place),
        _ => None,
    };
    let listed = match fields.get("devices") {
        Some(place) => devices(reader, place),
        None => Some(Devices::All),
    };
    let replicas = fields.get("replicas").and_then(|place| {
        let replicas = reader.number(place)?;
        let why = if replicas < FEWEST_REPLICAS {
            format!(
                "is {replicas}: a device is shared by {FEWEST_REPLICAS} or more; leave the entry out for one that isn't"
            )
        } else if replicas > MOST_REPLICAS {
            format!("is {replicas}: at most {MOST_REPLICAS} are made of a device")
        } else {
            return Some(replicas);
        };
        reader.problem(place, why);
        None
    });
    for what in ["name", "replicas"] {
        if fields.get(what).is_none() && matches!(place.tree, Tree::Map(_)) {
            reader.problem(place, format!("has no `{what}`"));
        }
    }
    Some(SharedResource {
        name: resource?,
        rename,
        devices: listed?,
        replicas: replicas?,
    })
}

fn devices(reader: &mut Reader, place: &Place<'_>) -> Option<Devices> {
    match place.tree {
        Tree::Text(text) if text == "all" => Some(Devices::All),
        Tree::Int(_) => match reader.number(place)? {
            0 => {
                reader.problem(place, "is 0: give `all`, a count of at least 1, or a list");
                None
            }
            count => Some(Devices::Count(count)),
        },
        Tree::List(_) => {
            let mut list: Vec<DeviceRef> = Vec::new();
            for item in reader.items(place, "a list")? {
                let device = match item.tree {
                    Tree::Int(_) => DeviceRef::Gpu(reader.number(&item)?),
                    _ => reader.parsed(&item)?,
                };
                if list.contains(&device) {
                    reader.problem(&item, format!("is `{device}`, which stands there twice"));
                    return None;
                }
                list.push(device);
            }
            if list.is_empty() {
                reader.problem(place, "is empty: give `all`, a count, or a list of devices");
                return None;
            }
            Some(Devices::List(list))
        }
        _ => {
            reader.problem(place, "must be `all`, a count, or a list of indices and UUIDs");
            None
        }
    }
}

fn imex(reader: &mut Reader, place: &Place<'_>) -> Imex {
    let fields = reader.fields(place, &["channelIDs", "required"]);
    let mut imex = Imex::default();
    if let Some(place) = fields.get("channelIDs") {
        for item in reader.items(place, "a list of channels").unwrap_or_default() {
            match reader.number(&item) {
                Some(0) if imex.channels.is_empty() => imex.channels.push(0),
                Some(0) => reader.problem(&item, "is channel 0 a second time"),
                Some(other) => reader.problem(&item, format!("is {other}: only channel 0 can be asked for")),
                None => {}
            }
        }
    }
    if let Some(place) = fields.get("required") {
        put(&mut imex.required, reader.flag(place));
    }
    if imex.required && imex.channels.is_empty() {
        reader.remark(
            place,
            "has `required` and no channel in `channelIDs`: nothing is required",
        );
    }
    imex
}
