//! Field values: many figures by number, in one call.

use nvml_wrapper_sys::bindings as sys;
use pitcrew_core::Reading;
use pitcrew_core::gpu::RecoveryAction;

use crate::call::{self, Plain as _};
use crate::code::{Answer, Code, reading};
use crate::device::Device;
use crate::field_ids::FIELD_IDS;

/// How many are asked for at once.
const AT_ONCE: usize = 64;
/// `scopeId` for the sum over all `NVLinks`.
const ALL_LINKS: u32 = u32::MAX;
/// More than any memory's temperature: what some drivers say of one that they can't read.
const TOO_HOT_C: u32 = 200;

/// Number of a field by NVML's name for it (`NVML_FI_DEV_*`, `NVML_FI_PWR_*`); `None` for one that we don't know.
pub fn field_id(name: &str) -> Option<u32> {
    FIELD_IDS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, id)| *id)
}

/// Names of all fields that we know, in no order.
pub fn field_names() -> impl Iterator<Item = &'static str> {
    FIELD_IDS.iter().map(|(name, _)| *name)
}

/// What a field is asked of: counters of `NVLinks` are those of all links together, what else a link has is that of
/// link 0, and power is that of the GPU.
fn scope(name: &str) -> u32 {
    let Some(of_nvlink) = name.strip_prefix("NVML_FI_DEV_NVLINK_") else {
        return 0;
    };
    let is_counter = ["THROUGHPUT_", "ERROR_DL_", "COUNT_", "PLR_"]
        .iter()
        .any(|family| of_nvlink.starts_with(family));
    if is_counter { ALL_LINKS } else { 0 }
}

/// Reads fields by name, in the order asked. Fails only for a GPU that can't be asked at all.
pub(crate) fn read(device: Device<'_>, names: &[&str]) -> Answer<Vec<Reading<u64>>> {
    let scoped: Vec<(&str, u32)> = names.iter().map(|name| (*name, scope(name))).collect();
    read_scoped(device, &scoped)
}

/// As [`read`], with what each is asked of: the number of a link, for those of links.
pub(crate) fn read_scoped(device: Device<'_>, names: &[(&str, u32)]) -> Answer<Vec<Reading<u64>>> {
    let mut found: Vec<Reading<u64>> = names.iter().map(|_| Reading::NotSupported).collect();
    let known: Vec<(usize, u32, u32)> = names
        .iter()
        .enumerate()
        .filter_map(|(at, (name, scope))| Some((at, *scope, field_id(name)?)))
        .collect();
    for batch in known.chunks(AT_ONCE) {
        let mut values: Vec<sys::nvmlFieldValue_t> = batch
            .iter()
            .map(|(_, scope, id)| sys::nvmlFieldValue_t {
                fieldId: *id,
                scopeId: *scope,
                // Drivers pass over fields that they don't know without a word.
                nvmlReturn: Code::NOT_SUPPORTED.0,
                ..sys::nvmlFieldValue_t::zeroed()
            })
            .collect();
        call::fill(
            &device.library.functions.nvmlDeviceGetFieldValues,
            device,
            &mut values,
        )?;
        for ((at, _, id), value) in batch.iter().zip(&values) {
            let answer = decode(*id, value);
            if answer == Err(Code::GPU_IS_LOST.into()) {
                return Err(Code::GPU_IS_LOST);
            }
            if let Some(place) = found.get_mut(*at) {
                *place = match answer {
                    Ok(value) => Reading::Value(value),
                    Err(Absence::Code(code)) => reading(Err(code)),
                    Err(Absence::Senseless(what)) => Reading::Failed(what),
                };
            }
        }
    }
    Ok(found)
}

/// Readings of a GPU that only fields give.
#[derive(Debug)]
pub(crate) struct OfInventory {
    pub(crate) memory_temperature_c: Reading<i32>,
    pub(crate) power_instant_mw: Reading<u32>,
    pub(crate) recovery_action: Reading<RecoveryAction>,
}

/// Reads what only fields give, in one call.
pub(crate) fn of_inventory(device: Device<'_>) -> Answer<OfInventory> {
    const NAMES: [&str; 3] = [
        "NVML_FI_DEV_MEMORY_TEMP",
        "NVML_FI_DEV_POWER_INSTANT",
        "NVML_FI_DEV_GET_GPU_RECOVERY_ACTION",
    ];
    let mut found = read(device, &NAMES)?.into_iter();
    let mut next = || found.next().unwrap_or(Reading::NotSupported);
    let (celsius, milliwatts, action) = (next(), next(), next());
    Ok(OfInventory {
        memory_temperature_c: celsius.map(|celsius| i32::try_from(celsius).unwrap_or(i32::MAX)),
        power_instant_mw: milliwatts.map(|milliwatts| u32::try_from(milliwatts).unwrap_or(u32::MAX)),
        recovery_action: action
            .map(|number| RecoveryAction::from_number(u32::try_from(number).unwrap_or(u32::MAX))),
    })
}

/// Why a field has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Absence {
    Code(Code),
    Senseless(String),
}

impl From<Code> for Absence {
    fn from(code: Code) -> Self {
        Self::Code(code)
    }
}

/// The value in the member of the union that the driver names.
fn decode(id: u32, value: &sys::nvmlFieldValue_t) -> Result<u64, Absence> {
    match Code::check(value.nvmlReturn) {
        Ok(()) => {}
        // A number that this driver is too old to know, or a link that there isn't.
        Err(Code::INVALID_ARGUMENT) => return Err(Code::NOT_SUPPORTED.into()),
        Err(code) => return Err(code.into()),
    }
    let bits = bits(value);
    if id == sys::field_id::NVML_FI_DEV_MEMORY_TEMP {
        // R545 names the wrong member; the right one is always this.
        let celsius = low_half(bits);
        return if celsius > TOO_HOT_C {
            Err(Absence::Senseless(format!("the driver says {celsius} C")))
        } else {
            Ok(u64::from(celsius))
        };
    }
    let below_zero = |value: i64| Err(Absence::Senseless(format!("it is below zero: {value}")));
    let signed = |value: i64| u64::try_from(value).or_else(|_| below_zero(value));
    match value.valueType {
        // Success without a type or a value: nobody has filled it in, as R580 does with power limits. No field is a
        // fraction by nature, so that no true zero looks like this.
        sys::nvmlValueType_enum_NVML_VALUE_TYPE_DOUBLE if bits == 0 => Err(Code::NOT_SUPPORTED.into()),
        sys::nvmlValueType_enum_NVML_VALUE_TYPE_DOUBLE => whole(f64::from_bits(bits)),
        sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT => Ok(u64::from(low_half(bits))),
        // `unsigned long` has 64 bits wherever this driver runs.
        sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG
        | sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG => Ok(bits),
        sys::nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_LONG_LONG => signed(bits.cast_signed()),
        sys::nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_INT => signed(i64::from(low_half(bits).cast_signed())),
        sys::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_SHORT => Ok(bits & 0xffff),
        other => Err(Absence::Senseless(format!("its type {other} is not known"))),
    }
}

/// A number with a fraction, rounded: none of those fields is a fraction by nature.
fn whole(value: f64) -> Result<u64, Absence> {
    // 2^63: beyond it nothing is counted.
    if value.is_finite() && (0.0..9.2e18).contains(&value) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is whole, not negative and small enough"
        )]
        Ok(value.round() as u64)
    } else {
        Err(Absence::Senseless(format!("it is no count: {value}")))
    }
}

/// Little-endian: the smaller members of the union are its low bytes.
fn low_half(bits: u64) -> u32 {
    let [a, b, c, d, ..] = bits.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// All bits of the union.
#[expect(unsafe_code, reason = "a union of C is read here")]
fn bits(value: &sys::nvmlFieldValue_t) -> u64 {
    const { assert!(cfg!(target_endian = "little")) }
    // SAFETY: the union is 8 bytes, all of which are initialised: it was zeroed, and then C may have written some.
    unsafe { value.value.ullVal }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(kind: u32, bits: u64) -> sys::nvmlFieldValue_t {
        sys::nvmlFieldValue_t {
            valueType: kind,
            timestamp: 1,
            value: sys::nvmlValue_t { ullVal: bits },
            ..sys::nvmlFieldValue_t::zeroed()
        }
    }

    #[test]
    fn the_table_has_no_name_twice() {
        let mut names: Vec<_> = field_names().collect();
        names.sort_unstable();
        assert!(names.is_sorted_by(|a, b| a < b));
        assert_eq!(field_id("NVML_FI_DEV_ECC_CURRENT"), Some(1));
        assert_eq!(field_id("NVML_FI_DEV_GET_GPU_RECOVERY_ACTION"), Some(230));
        assert_eq!(field_id("NVML_FI_DEV_REMAPPED_ROWS_UNC_INACTIVE"), Some(302));
        assert_eq!(field_id("NVML_FI_DEV_NO_SUCH_THING"), None);
    }

    #[test]
    fn counters_of_nvlinks_are_asked_of_all_links() {
        assert_eq!(scope("NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX"), ALL_LINKS);
        assert_eq!(scope("NVML_FI_DEV_NVLINK_COUNT_SYMBOL_BER"), ALL_LINKS);
        assert_eq!(scope("NVML_FI_DEV_NVLINK_ERROR_DL_CRC"), ALL_LINKS);
        assert_eq!(scope("NVML_FI_DEV_NVLINK_GET_SPEED"), 0);
        assert_eq!(scope("NVML_FI_DEV_POWER_INSTANT"), 0);
    }

    #[test]
    fn each_type_is_read_from_its_member_of_the_union() {
        let of = |kind, bits| decode(sys::field_id::NVML_FI_DEV_ENERGY, &value(kind, bits));
        assert_eq!(of(0, 41.6_f64.to_bits()), Ok(42));
        assert_eq!(of(1, 0xffff_ffff_0000_0007), Ok(7));
        assert_eq!(of(2, u64::MAX), Ok(u64::MAX));
        assert_eq!(of(3, 5), Ok(5));
        assert_eq!(of(4, 6), Ok(6));
        assert_eq!(of(5, 0xffff_ffff_0000_0008), Ok(8));
        assert_eq!(of(6, 0xffff_ffff_ffff_0009), Ok(9));
        let senseless = |kind, bits: u64| match of(kind, bits) {
            Err(Absence::Senseless(what)) => what,
            other => panic!("{other:?}"),
        };
        assert_eq!(senseless(4, (-3_i64).cast_unsigned()), "it is below zero: -3");
        assert_eq!(
            senseless(5, u64::from((-4_i32).cast_unsigned())),
            "it is below zero: -4"
        );
        assert_eq!(senseless(0, f64::NAN.to_bits()), "it is no count: NaN");
        assert_eq!(senseless(99, 1), "its type 99 is not known");
    }

    #[test]
    fn a_field_that_nobody_filled_in_is_no_zero() {
        for untouched in [sys::nvmlFieldValue_t::zeroed(), value(0, 0)] {
            for id in [
                sys::field_id::NVML_FI_DEV_POWER_MIN_LIMIT,
                sys::field_id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION,
            ] {
                assert_eq!(decode(id, &untouched), Err(Code::NOT_SUPPORTED.into()));
            }
        }
        let refused = sys::nvmlFieldValue_t {
            nvmlReturn: 3,
            ..value(3, 9)
        };
        assert_eq!(
            decode(sys::field_id::NVML_FI_DEV_ENERGY, &refused),
            Err(Code::NOT_SUPPORTED.into())
        );
    }

    proptest! {
        #[test]
        fn whatever_a_driver_writes_is_a_value_or_a_reason(kind in 0..9_u32, bits: u64, code in 0..40_u32, id in 0..310_u32) {
            let answer = sys::nvmlFieldValue_t { nvmlReturn: code, ..value(kind, bits) };
            prop_assert!(code == 0 || decode(id, &answer).is_err());
        }
    }

    #[test]
    fn the_memory_temperature_is_in_one_member_whatever_the_driver_says() {
        let of = |kind, bits| decode(sys::field_id::NVML_FI_DEV_MEMORY_TEMP, &value(kind, bits));
        assert_eq!(of(3, 0xdead_0000_0035), Ok(53));
        assert_eq!(of(1, 53), Ok(53));
        assert_eq!(
            of(1, 255),
            Err(Absence::Senseless("the driver says 255 C".to_owned()))
        );
    }
}
