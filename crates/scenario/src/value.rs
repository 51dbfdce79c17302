//! Readings set by name: from YAML, and from a [`crate::Change`].

use std::collections::BTreeMap;
use std::fmt;

use pitcrew_core::Reading;
use pitcrew_core::catalog::ComputeCapability;
use pitcrew_core::gpu::{
    ComputeMode, Fabric, FabricState, GpuReadings, PowerRange, RecoveryAction, RemappedRows, RetiredPages,
    Virtualization,
};
use serde::{Deserialize, Serialize};

use crate::error::{Problem, nearest};

/// A value as written: what a scenario or a change gives for a reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Text.
    Text(String),
    /// Parts by name, e.g. `{min: 200000, max: 700000}`.
    Parts(BTreeMap<String, Value>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "`{value}`"),
            Self::Integer(value) => write!(f, "`{value}`"),
            Self::Text(value) => write!(f, "the text `{value}`"),
            Self::Parts(_) => f.write_str("a mapping"),
        }
    }
}

/// Readings that are changed in other ways: by MIG calls, processes and XIDs.
pub(crate) const HAVE_THEIR_OWN_KEY: &[(&str, &str)] = &[
    ("mig_mode", "it follows from `mig`"),
    ("mig_devices", "it follows from `mig`"),
    ("processes", "it follows from `processes`"),
    ("xids", "it follows from `xids`"),
];

/// A type that a reading can have and a person can write.
trait Written: Sized {
    /// The value, or what it must be.
    fn read(value: &Value) -> Result<Self, String>;
}

macro_rules! whole_number {
    ($($ty:ty),*) => {$(
        impl Written for $ty {
            fn read(value: &Value) -> Result<Self, String> {
                let expected = || format!("a whole number from {} to {}", <$ty>::MIN, <$ty>::MAX);
                match value {
                    Value::Integer(number) => <$ty>::try_from(*number).map_err(|_| expected()),
                    _ => Err(expected()),
                }
            }
        }
    )*};
}
whole_number!(u32, u64, i32);

impl Written for bool {
    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Bool(value) => Ok(*value),
            _ => Err("true or false".to_owned()),
        }
    }
}

impl Written for String {
    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Text(text) => Ok(text.clone()),
            _ => Err("text (put it in quotes)".to_owned()),
        }
    }
}

impl Written for ComputeCapability {
    fn read(value: &Value) -> Result<Self, String> {
        let expected = "a compute capability in quotes, e.g. \"9.0\"";
        match value {
            Value::Text(text) => text.parse().ok().ok_or_else(|| expected.to_owned()),
            _ => Err(expected.to_owned()),
        }
    }
}

/// The parts of a mapping, all of which must be there.
fn parts<const N: usize>(value: &Value, names: [&str; N], expected: &str) -> Result<[Value; N], String> {
    let Value::Parts(given) = value else {
        return Err(expected.to_owned());
    };
    if given.len() != N {
        return Err(expected.to_owned());
    }
    let mut found = Vec::with_capacity(N);
    for name in names {
        found.push(given.get(name).cloned().ok_or_else(|| expected.to_owned())?);
    }
    found.try_into().map_err(|_| expected.to_owned())
}

impl Written for PowerRange {
    fn read(value: &Value) -> Result<Self, String> {
        let expected = "a mapping {min, max} in milliwatts, min not above max";
        let [min, max] = parts(value, ["min", "max"], expected)?;
        let range = Self {
            min: u32::read(&min)?,
            max: u32::read(&max)?,
        };
        if range.min <= range.max {
            Ok(range)
        } else {
            Err(expected.to_owned())
        }
    }
}

impl Written for RemappedRows {
    fn read(value: &Value) -> Result<Self, String> {
        let names = ["correctable", "uncorrectable", "pending", "failure"];
        let expected = "a mapping {correctable, uncorrectable, pending, failure}";
        let [correctable, uncorrectable, pending, failure] = parts(value, names, expected)?;
        Ok(Self {
            correctable: u32::read(&correctable)?,
            uncorrectable: u32::read(&uncorrectable)?,
            pending: bool::read(&pending)?,
            failure: bool::read(&failure)?,
        })
    }
}

impl Written for RetiredPages {
    fn read(value: &Value) -> Result<Self, String> {
        let expected = "a mapping {single_bit, double_bit, pending}";
        let [single_bit, double_bit, pending] =
            parts(value, ["single_bit", "double_bit", "pending"], expected)?;
        Ok(Self {
            single_bit: u32::read(&single_bit)?,
            double_bit: u32::read(&double_bit)?,
            pending: bool::read(&pending)?,
        })
    }
}

impl Written for RecoveryAction {
    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Text(text) => text.parse().ok(),
            _ => None,
        }
        .ok_or_else(|| {
            "none, gpu-reset, node-reboot, drain-p2p, drain-and-reset, recover-imex-domain, bus-reset, system-reboot \
             or unknown-N with N the driver's number"
                .to_owned()
        })
    }
}

impl Written for FabricState {
    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Text(text) => match text.as_str() {
                "not-started" => Some(Self::NotStarted),
                "in-progress" => Some(Self::InProgress),
                "completed" => Some(Self::Completed),
                _ => None,
            },
            _ => None,
        }
        .ok_or_else(|| "not-started, in-progress or completed".to_owned())
    }
}

impl Written for Fabric {
    fn read(value: &Value) -> Result<Self, String> {
        let expected = "a mapping {state: not-started or in-progress}, or {state: completed, status, clique, \
                        cluster_uuid}";
        // NVML tells the rest only where registering has ended.
        if let Ok([state]) = parts(value, ["state"], expected) {
            return match FabricState::read(&state)? {
                FabricState::Completed => Err(expected.to_owned()),
                state => Ok(Self {
                    state,
                    status: None,
                    clique: None,
                    cluster_uuid: None,
                }),
            };
        }
        let names = ["state", "status", "clique", "cluster_uuid"];
        let [state, status, clique, cluster_uuid] = parts(value, names, expected)?;
        let cluster_uuid = String::read(&cluster_uuid)?;
        if FabricState::read(&state)? != FabricState::Completed {
            return Err(expected.to_owned());
        }
        if uuid_bytes(&cluster_uuid).is_none() {
            return Err("a `cluster_uuid` such as 00000000-0000-0000-0000-000000000000".to_owned());
        }
        Ok(Self {
            state: FabricState::Completed,
            status: Some(String::read(&status)?),
            clique: Some(u32::read(&clique)?),
            cluster_uuid: Some(cluster_uuid),
        })
    }
}

/// The bytes of a UUID as it is written.
pub fn uuid_bytes(text: &str) -> Option<[u8; 16]> {
    let lengths = text.split('-').map(str::len);
    if !lengths.eq([8, 4, 4, 4, 12]) {
        return None;
    }
    let digits: String = text.split('-').collect();
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    u128::from_str_radix(&digits, 16)
        .ok()
        .filter(|_| is_hex)
        .map(u128::to_be_bytes)
}

impl Written for Virtualization {
    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Text(text) => match text.as_str() {
                "none" => Some(Self::None),
                "passthrough" => Some(Self::Passthrough),
                "vgpu" => Some(Self::Vgpu),
                "host-vgpu" => Some(Self::HostVgpu),
                "host-vsga" => Some(Self::HostVsga),
                _ => None,
            },
            _ => None,
        }
        .ok_or_else(|| "none, passthrough, vgpu, host-vgpu or host-vsga".to_owned())
    }
}

impl Written for ComputeMode {
    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Text(text) => match text.as_str() {
                "default" => Some(Self::Default),
                "prohibited" => Some(Self::Prohibited),
                "exclusive-process" => Some(Self::ExclusiveProcess),
                _ => None,
            },
            _ => None,
        }
        .ok_or_else(|| "default, prohibited or exclusive-process".to_owned())
    }
}

/// The name as core spells it, or the names near it.
pub(crate) fn known_field(field: &str) -> Result<&'static str, Problem> {
    GpuReadings::FIELDS
        .iter()
        .find(|&&known| known == field)
        .copied()
        .ok_or_else(|| Problem::UnknownReading {
            field: field.to_owned(),
            near: nearest(field, GpuReadings::FIELDS.iter().copied()),
        })
}

macro_rules! settable {
    ($($field:ident)*; $($other:ident)*) => {
        /// Sets a reading by its name.
        pub(crate) fn set(readings: &mut GpuReadings, field: &str, value: &Value) -> Result<(), Problem> {
            let bad = |expected: String| Problem::BadValue {
                field: field.to_owned(),
                expected,
                found: value.to_string(),
            };
            match known_field(field)? {
                $(stringify!($field) => readings.$field = Reading::Value(Written::read(value).map_err(bad)?),)*
                other => {
                    let own = HAVE_THEIR_OWN_KEY.iter().find(|(name, _)| *name == other);
                    let how = own.map_or("it is not the scenario's to give", |(_, how)| how);
                    return Err(Problem::NotSettable { field: other.to_owned(), how });
                }
            }
            Ok(())
        }

        /// Makes a reading one that the device doesn't have; false when there is no such field.
        #[must_use]
        pub(crate) fn unsupport(readings: &mut GpuReadings, field: &str) -> bool {
            match field {
                $(stringify!($field) => readings.$field = Reading::NotSupported,)*
                $(stringify!($other) => readings.$other = Reading::NotSupported,)*
                _ => return false,
            }
            true
        }
    };
}

settable! {
    name uuid serial board_part_number vbios gsp_firmware minor compute_capability cores memory_bus_bits numa_node
    memory_total_bytes memory_used_bytes memory_free_bytes memory_reserved_bytes bar1_total_bytes bar1_used_bytes
    temperature_c memory_temperature_c fan_percent power_mw power_instant_mw power_limit_mw
    power_limit_requested_mw power_limit_default_mw power_limit_range_mw energy_mj
    utilization_gpu_percent utilization_memory_percent clock_sm_mhz clock_memory_mhz clock_sm_max_mhz
    clock_memory_max_mhz clocks_event_reasons performance_state
    pcie_generation pcie_generation_max pcie_width pcie_width_max pcie_replays nvlinks_active
    fabric ecc ecc_pending ecc_corrected ecc_uncorrected remapped_rows retired_pages recovery_action persistence virtualization compute_mode;
    mig_mode mig_devices processes xids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reading_can_be_set_or_has_its_own_key() {
        for field in GpuReadings::FIELDS {
            let mut readings = GpuReadings::all_failed("x");
            assert!(
                unsupport(&mut readings, field),
                "{field} can't be made unsupported"
            );
            assert_eq!(readings.unread().len(), GpuReadings::FIELDS.len() - 1, "{field}");
            let values = [
                Value::Integer(1),
                Value::Bool(true),
                Value::Text("9.0".to_owned()),
                Value::Text("default".to_owned()),
                Value::Text("none".to_owned()),
                Value::Parts(
                    [("min", 1), ("max", 2)]
                        .map(|(k, v)| (k.to_owned(), Value::Integer(v)))
                        .into(),
                ),
                Value::Parts(
                    [
                        ("correctable", Value::Integer(1)),
                        ("uncorrectable", Value::Integer(1)),
                        ("pending", Value::Bool(true)),
                        ("failure", Value::Bool(false)),
                    ]
                    .map(|(k, v)| (k.to_owned(), v))
                    .into(),
                ),
                Value::Parts(
                    [
                        ("single_bit", Value::Integer(1)),
                        ("double_bit", Value::Integer(1)),
                        ("pending", Value::Bool(true)),
                    ]
                    .map(|(k, v)| (k.to_owned(), v))
                    .into(),
                ),
                Value::Parts([("state".to_owned(), Value::Text("not-started".to_owned()))].into()),
            ];
            let settable = values
                .iter()
                .any(|value| set(&mut readings, field, value).is_ok());
            assert_eq!(
                settable,
                !HAVE_THEIR_OWN_KEY.iter().any(|(name, _)| name == field),
                "{field}"
            );
        }
    }

    #[test]
    fn a_fabric_says_the_rest_only_where_registering_has_ended() {
        let mut readings = GpuReadings::none_supported();
        let mut says = |text: &str| {
            let value: Value = serde_json::from_str(text).unwrap();
            set(&mut readings, "fabric", &value).map(|()| readings.fabric.value().unwrap().clone())
        };
        let all = r#"{"state": "STATE", "status": "Success", "clique": 3,
            "cluster_uuid": "00000000-0000-0000-0000-0000000000ff"}"#;
        let registered = says(&all.replace("STATE", "completed")).unwrap();
        assert!(registered.is_registered());
        assert_eq!(says(r#"{"state": "in-progress"}"#).unwrap().clique, None);
        assert!(says(&all.replace("STATE", "in-progress")).is_err());
        assert!(says(r#"{"state": "completed"}"#).is_err());
        let short = all.replace("STATE", "completed").replace("-0000-", "-");
        insta::assert_snapshot!(says(&short).unwrap_err(), @"`fabric` must be a `cluster_uuid` such as 00000000-0000-0000-0000-000000000000, not a mapping");
    }

    #[test]
    fn the_bytes_of_a_uuid_are_those_of_its_digits() {
        let bytes = uuid_bytes("01000000-0000-0000-0000-0000000000ff").unwrap();
        assert_eq!((bytes[0], bytes[15]), (1, 0xff));
        for wrong in ["", "+1000000-0000-0000-0000-0000000000ff", "01000000-0000"] {
            assert_eq!(uuid_bytes(wrong), None);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_in_words() {
        let mut readings = GpuReadings::none_supported();
        let negative = set(&mut readings, "power_mw", &Value::Integer(-5)).unwrap_err();
        insta::assert_snapshot!(negative, @"`power_mw` must be a whole number from 0 to 4294967295, not `-5`");
        let own = set(&mut readings, "xids", &Value::Integer(79)).unwrap_err();
        insta::assert_snapshot!(own, @"`xids` can't be set as a reading: it follows from `xids`");
        let unknown = set(&mut readings, "temprature_c", &Value::Integer(4)).unwrap_err();
        insta::assert_snapshot!(unknown, @"no reading is called `temprature_c`; did you mean `temperature_c`?");
    }
}
