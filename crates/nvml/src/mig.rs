//! MIG: its mode, profiles and devices, and GPU instances.

use nvml_wrapper_sys::bindings as sys;
use pitcrew_core::Reading;
use pitcrew_core::gpu::{GpuInstance as GpuInstanceFacts, GpuProcess, MigDevice, MigMode};
use pitcrew_core::mig::{Engines, GeometryProfile, Placement, Profile};
use pitcrew_core::ports::GpuError;

use crate::call::{self, Handle, Plain as _, version_of};
use crate::code::{Answer, Code};
use crate::device::Device;
use crate::library::Library;

mod compute;

pub(crate) use compute::{create_compute_instance, destroy_compute_instance};

/// NVML's numbers for kinds of GPU instances are 0 to 17 so far (`NVML_GPU_INSTANCE_PROFILE_*`); those that a
/// library doesn't know it refuses.
const MOST_PROFILES: u32 = 32;
const MIB: u64 = 1 << 20;

/// A GPU instance. It lives no longer than the library.
#[derive(Debug, Clone, Copy)]
struct GpuInstance<'l> {
    library: &'l Library,
    raw: sys::nvmlGpuInstance_t,
}

impl Handle for GpuInstance<'_> {
    type Raw = sys::nvmlGpuInstance_t;
    fn raw(self) -> Self::Raw {
        self.raw
    }
}

/// What is known of a kind of GPU instance.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ProfileInfo {
    /// `1g.10gb`, where the driver says it (R525 and later).
    name: Option<Profile>,
    id: u32,
    slices: u32,
    instances: u32,
    multiprocessors: u32,
    memory_mib: u64,
}

impl GpuInstance<'_> {
    fn info(self) -> Answer<sys::nvmlGpuInstanceInfo_t> {
        call::get_of(&self.library.functions.nvmlGpuInstanceGetInfo, self)
    }

    /// What we say of it, whose profile is known.
    fn facts(self, uuid: &str, profile: Profile) -> Result<GpuInstanceFacts, GpuError> {
        let info = self
            .info()
            .map_err(|code| code.of_request(uuid, "reading a GPU instance"))?;
        let placement = placement(info.placement)
            .ok_or_else(|| refused(uuid, "the placement of a GPU instance makes no sense".to_owned()))?;
        Ok(GpuInstanceFacts {
            id: info.id,
            profile,
            placement,
        })
    }

    /// Destroys it and the compute instances in it.
    fn destroy(self) -> Answer<()> {
        for instance in self.compute_instances()? {
            instance.destroy()?;
        }
        call::act(&self.library.functions.nvmlGpuInstanceDestroy, self)
    }
}

impl<'l> Device<'l> {
    fn gpu_instance(self, id: u32) -> Answer<GpuInstance<'l>> {
        let raw = call::get_of_two(&self.library.functions.nvmlDeviceGetGpuInstanceById, self, id)?;
        Ok(GpuInstance {
            library: self.library,
            raw,
        })
    }

    fn profile_info(self, profile: u32) -> Answer<ProfileInfo> {
        let functions = &self.library.functions;
        let wanted = sys::nvmlGpuInstanceProfileInfo_v2_t {
            version: version_of::<sys::nvmlGpuInstanceProfileInfo_v2_t>(2),
            ..sys::nvmlGpuInstanceProfileInfo_v2_t::zeroed()
        };
        let newer = call::get_of_two_into(
            &functions.nvmlDeviceGetGpuInstanceProfileInfoV,
            self,
            profile,
            wanted,
        );
        match newer {
            Ok(info) => Ok(ProfileInfo {
                name: profile_of_name(&call::from_c(&info.name)),
                id: info.id,
                slices: info.sliceCount,
                instances: info.instanceCount,
                multiprocessors: info.multiprocessorCount,
                memory_mib: info.memorySizeMB,
            }),
            Err(code) if code.wants_older_call() => {
                let info: sys::nvmlGpuInstanceProfileInfo_t =
                    call::get_of_two(&functions.nvmlDeviceGetGpuInstanceProfileInfo, self, profile)?;
                Ok(ProfileInfo {
                    name: None,
                    id: info.id,
                    slices: info.sliceCount,
                    instances: info.instanceCount,
                    multiprocessors: info.multiprocessorCount,
                    memory_mib: info.memorySizeMB,
                })
            }
            Err(code) => Err(code),
        }
    }

    /// Kinds of GPU instances of this card, with NVML's number for each.
    fn profile_infos(self) -> Answer<Vec<(u32, ProfileInfo)>> {
        let mut all = Vec::new();
        for profile in 0..MOST_PROFILES {
            match self.profile_info(profile) {
                Ok(info) => all.push((profile, info)),
                Err(Code::INVALID_ARGUMENT) => {}
                Err(code) if code.is_unsupported() => {}
                Err(code) => return Err(code),
            }
        }
        Ok(all)
    }

    /// Places of a kind of GPU instance; none while MIG is off, when the driver doesn't say.
    fn placements(self, profile_id: u32) -> Answer<Vec<Placement>> {
        let functions = &self.library.functions;
        let found = call::list_of_two(
            &functions.nvmlDeviceGetGpuInstancePossiblePlacements_v2,
            self,
            profile_id,
        );
        let mut placements: Vec<Placement> = match found {
            Ok(found) => found.into_iter().filter_map(placement).collect(),
            Err(code) if code.is_unsupported() => Vec::new(),
            Err(code) => return Err(code),
        };
        placements.sort_unstable();
        Ok(placements)
    }

    /// MIG devices on this GPU, by GPU instance.
    pub(crate) fn read_mig_devices(self, mode: MigMode) -> Reading<Vec<MigDevice>> {
        if !mode.current {
            return Reading::Value(Vec::new());
        }
        let handles = match self.mig_devices() {
            Ok(handles) => handles,
            Err(code) => return crate::code::reading(Err(code)),
        };
        let mut devices = Vec::new();
        for handle in handles {
            match self.read_mig_device(handle) {
                Ok(device) => devices.push(device),
                // A device in part would be taken for another one.
                Err(reason) => return Reading::Failed(reason),
            }
        }
        devices.sort_by_key(|device| (device.gpu_instance, device.compute_instance));
        Reading::Value(devices)
    }

    fn read_mig_device(self, handle: Device<'l>) -> Result<MigDevice, String> {
        let because = |what: &'static str| move |code: Code| format!("{what} of a MIG device: {code}");
        let uuid = handle.uuid().map_err(because("the UUID"))?;
        let gpu_instance = handle.gpu_instance_id().map_err(because("the GPU instance"))?;
        let compute_instance = handle
            .compute_instance_id()
            .map_err(because("the compute instance"))?;
        let info = self
            .gpu_instance(gpu_instance)
            .and_then(GpuInstance::info)
            .map_err(because("the placement"))?;
        let placement = placement(info.placement).ok_or("the placement of a MIG device makes no sense")?;
        let attributes = handle.attributes();
        let name = handle.name().ok().and_then(|name| profile_of_name(&name));
        let profile = match name {
            Some(profile) => profile,
            None => self
                .profile_of(&info, attributes.as_ref().ok())
                .map_err(because("the profile"))?,
        };
        Ok(MigDevice {
            uuid,
            gpu_instance,
            compute_instance,
            profile,
            placement,
            memory_total_bytes: crate::code::reading(
                attributes.map(|attributes| attributes.memorySizeMB.saturating_mul(MIB)),
            ),
            memory_used_bytes: crate::code::reading(handle.memory().map(|memory| memory.used)),
            multiprocessors: crate::code::reading(
                attributes.map(|attributes| attributes.multiprocessorCount),
            ),
            engines: crate::code::reading(attributes.map(|attributes| Engines {
                copy: attributes.sharedCopyEngineCount,
                decoder: attributes.sharedDecoderCount,
                encoder: attributes.sharedEncoderCount,
                jpeg: attributes.sharedJpegCount,
                ofa: attributes.sharedOfaCount,
            })),
        })
    }

    /// The profile of an instance whose name doesn't say it: by its kind, and the share of the compute instance.
    fn profile_of(
        self,
        instance: &sys::nvmlGpuInstanceInfo_t,
        attributes: Option<&sys::nvmlDeviceAttributes_t>,
    ) -> Answer<Profile> {
        let infos = self.profile_infos()?;
        let (_, info) = infos
            .iter()
            .find(|(_, info)| info.id == instance.profileId)
            .ok_or(Code::NOT_FOUND)?;
        let whole = self.named(info)?;
        let part = attributes.and_then(|attributes| u8::try_from(attributes.computeInstanceSliceCount).ok());
        Ok(Profile {
            compute_slices: part.filter(|part| *part > 0).unwrap_or(whole.compute_slices),
            ..whole
        })
    }

    /// The profile of a kind of GPU instance; computed for drivers that don't name it.
    fn named(self, info: &ProfileInfo) -> Answer<Profile> {
        if let Some(name) = &info.name {
            return Ok(name.clone());
        }
        let total = self.memory()?.total;
        let slices = u8::try_from(info.slices).map_err(|_| Code::UNKNOWN)?;
        let memory_gb = rounded_gb(total, info.memory_mib).ok_or(Code::UNKNOWN)?;
        Ok(Profile {
            compute_slices: slices,
            gpu_slices: slices,
            memory_gb,
            attribute: None,
        })
    }
}

/// Profiles of a GPU for planning.
pub(crate) fn profiles(device: Device<'_>, uuid: &str) -> Result<Vec<GeometryProfile>, GpuError> {
    let failed = |code: Code| code.of_request(uuid, "MIG");
    let infos = device.profile_infos().map_err(failed)?;
    if infos.is_empty() {
        return Err(Code::NOT_SUPPORTED.of_request(uuid, "MIG"));
    }
    let mut profiles = Vec::with_capacity(infos.len());
    for (nvml_profile, info) in infos {
        profiles.push(GeometryProfile {
            profile: device.named(&info).map_err(failed)?,
            id: Some(info.id),
            nvml_profile,
            slice_count: info.slices,
            max_instances: info.instances,
            memory_mib: u32::try_from(info.memory_mib).ok(),
            multiprocessors: Some(info.multiprocessors),
            placements: device.placements(info.id).map_err(failed)?,
        });
    }
    Ok(profiles)
}

/// Turns MIG on or off, or has it wait for a reset where the card needs one.
pub(crate) fn set_mode(device: Device<'_>, uuid: &str, enabled: bool) -> Result<(), GpuError> {
    let functions = &device.library.functions;
    let failed = |code: Code| {
        let instances = gpu_instances(device, uuid).map_or(0, |all| all.len());
        if code == Code::IN_USE && !enabled && instances > 0 {
            return GpuError::InUse {
                gpu: uuid.to_owned(),
                holder: format!("{instances} GPU instances exist; destroy them first"),
            };
        }
        with_holder(device, uuid, code, "switching MIG", |_| true)
    };
    let activation =
        call::get_of_two::<_, _, u32>(&functions.nvmlDeviceSetMigMode, device, u32::from(enabled))
            .map_err(failed)?;
    let Err(code) = Code::check(activation) else {
        return Ok(());
    };
    // The mode is set, and what keeps it from taking effect is told apart from that.
    let is_pending = device.mig_mode().is_ok_and(|mode| mode.pending == enabled);
    match code {
        // A card that needs a reset, and a virtual machine, which may not reset one.
        Code::RESET_REQUIRED | Code::NOT_SUPPORTED if is_pending => Ok(()),
        code => Err(failed(code)),
    }
}

/// GPU instances, by number, also those that are no device yet.
pub(crate) fn gpu_instances(device: Device<'_>, uuid: &str) -> Result<Vec<GpuInstanceFacts>, GpuError> {
    let failed = |code: Code| code.of_request(uuid, "MIG");
    if !device.mig_mode().map_err(failed)?.current {
        return Ok(Vec::new());
    }
    let functions = &device.library.functions;
    let mut all: Vec<GpuInstanceFacts> = Vec::new();
    for (_, info) in device.profile_infos().map_err(failed)? {
        let profile = device.named(&info).map_err(failed)?;
        let of_kind =
            call::list_of_two(&functions.nvmlDeviceGetGpuInstances, device, info.id).map_err(failed)?;
        for raw in of_kind {
            let instance = GpuInstance {
                library: device.library,
                raw,
            };
            let facts = instance.facts(uuid, profile.clone())?;
            // Kinds may have one number.
            if !all.iter().any(|known| known.id == facts.id) {
                all.push(facts);
            }
        }
    }
    all.sort_by_key(|instance| instance.id);
    Ok(all)
}

/// Creates a GPU instance with nothing in it.
pub(crate) fn create_gpu_instance(
    device: Device<'_>,
    uuid: &str,
    profile: &Profile,
    place: Option<Placement>,
) -> Result<GpuInstanceFacts, GpuError> {
    let mode = device.mig_mode().map_err(|code| code.of_request(uuid, "MIG"))?;
    if !mode.current {
        return Err(refused(uuid, "MIG is off".to_owned()));
    }
    let id = instance_kind(device, uuid, profile)?;
    let functions = &device.library.functions;
    let raw = match place {
        Some(place) => {
            let place = sys::nvmlGpuInstancePlacement_t {
                start: u32::from(place.start),
                size: u32::from(place.size),
            };
            call::get_with(
                &functions.nvmlDeviceCreateGpuInstanceWithPlacement,
                device,
                id,
                &place,
            )
        }
        None => call::get_of_two(&functions.nvmlDeviceCreateGpuInstance, device, id),
    };
    let raw = raw.map_err(|code| match code {
        Code::INSUFFICIENT_RESOURCES => refused(
            uuid,
            match place {
                Some(place) => format!("`{profile}` does not fit at {}:{}", place.start, place.size),
                None => format!("no place is free for `{profile}`"),
            },
        ),
        Code::INVALID_ARGUMENT if place.is_some() => {
            refused(uuid, format!("`{profile}` can't be placed there"))
        }
        code => with_holder(device, uuid, code, "creating a GPU instance", |process| {
            process.gpu_instance.is_none()
        }),
    })?;
    let instance = GpuInstance {
        library: device.library,
        raw,
    };
    let created = instance.facts(uuid, profile.clone());
    if created.is_err() {
        // Nobody would know its number; the first error is the one to tell.
        let _: Answer<()> = instance.destroy();
    }
    created
}

/// Number of the kind of GPU instance of this profile.
fn instance_kind(device: Device<'_>, uuid: &str, profile: &Profile) -> Result<u32, GpuError> {
    let known = profiles(device, uuid)?;
    let id = known
        .iter()
        .find(|known| known.profile == *profile)
        .and_then(|known| known.id);
    id.ok_or_else(|| {
        let names: Vec<String> = known.iter().map(|known| known.profile.to_string()).collect();
        refused(
            uuid,
            format!("it has no profile `{profile}`; it has {}", names.join(", ")),
        )
    })
}

/// Destroys a GPU instance and the compute instances in it.
pub(crate) fn destroy(device: Device<'_>, uuid: &str, gpu_instance: u32) -> Result<(), GpuError> {
    let instance = find_instance(device, uuid, gpu_instance)?;
    let is_in_it = |process: &GpuProcess| process.gpu_instance == Some(gpu_instance);
    // The driver would refuse only at the compute instance that is held, with others before it gone.
    let processes = device.processes();
    let mut processes = processes.value().into_iter().flatten();
    if let Some(process) = processes.find(|process| is_in_it(process)) {
        return Err(held(uuid, process.pid));
    }
    instance
        .destroy()
        .map_err(|code| with_holder(device, uuid, code, "destroying a GPU instance", is_in_it))
}

fn find_instance<'l>(device: Device<'l>, uuid: &str, id: u32) -> Result<GpuInstance<'l>, GpuError> {
    device.gpu_instance(id).map_err(|code| match code {
        Code::NOT_FOUND | Code::INVALID_ARGUMENT => refused(uuid, format!("there is no GPU instance {id}")),
        code => code.of_request(uuid, "MIG"),
    })
}

fn refused(uuid: &str, reason: String) -> GpuError {
    GpuError::Refused {
        gpu: uuid.to_owned(),
        reason,
    }
}

fn held(uuid: &str, pid: u32) -> GpuError {
    GpuError::InUse {
        gpu: uuid.to_owned(),
        holder: format!("process {pid} holds it"),
    }
}

/// The error of a request; where one of the processes that can be in its way holds the GPU, which.
fn with_holder(
    device: Device<'_>,
    uuid: &str,
    code: Code,
    what: &str,
    is_in_the_way: impl Fn(&GpuProcess) -> bool,
) -> GpuError {
    if code != Code::IN_USE {
        return code.of_request(uuid, what);
    }
    let processes = device.processes();
    let mut processes = processes.value().into_iter().flatten();
    processes
        .find(|process| is_in_the_way(process))
        .map_or_else(|| code.of_request(uuid, what), |process| held(uuid, process.pid))
}

/// `MIG 1g.10gb` of a profile and `NVIDIA A100-SXM4-80GB MIG 1g.10gb` of a device.
fn profile_of_name(name: &str) -> Option<Profile> {
    name.rsplit(' ').next()?.parse().ok()
}

fn placement(found: sys::nvmlGpuInstancePlacement_t) -> Option<Placement> {
    Some(Placement {
        start: u8::try_from(found.start).ok()?,
        size: u8::try_from(found.size).ok().filter(|size| *size > 0)?,
    })
}

/// Memory in a profile's name: as many eighths of the GPU's, begun ones counted, in whole GB. So NVIDIA's own
/// tools name profiles for drivers that don't.
fn rounded_gb(total_bytes: u64, memory_mib: u64) -> Option<u16> {
    const GIB: u128 = 1 << 30;
    let (total, memory) = (u128::from(total_bytes), u128::from(memory_mib) * u128::from(MIB));
    if total == 0 {
        return None;
    }
    let eighths = (memory * 8).div_ceil(total);
    let total_gb = total.div_ceil(GIB);
    u16::try_from((eighths * total_gb + 4) / 8)
        .ok()
        .filter(|gb| *gb > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_found_in_the_names_of_devices_and_profiles() {
        let of = |name: &str| profile_of_name(name).map(|profile| profile.to_string());
        assert_eq!(of("MIG 1g.10gb"), Some("1g.10gb".to_owned()));
        assert_eq!(
            of("NVIDIA H100 80GB HBM3 MIG 1c.3g.40gb"),
            Some("1c.3g.40gb".to_owned())
        );
        assert_eq!(of("MIG 1g.24gb+me.all"), Some("1g.24gb+me.all".to_owned()));
        assert_eq!(of("NVIDIA H100 80GB HBM3"), None);
        assert_eq!(of(""), None);
    }

    #[test]
    fn sizes_are_named_as_nvidia_names_them() {
        // Figures of NVIDIA's MIG user guide: memory of the GPU, of the instance, and the name.
        for (total_mib, memory_mib, gb) in [
            (81_920, 9_856, 10),
            (81_920, 19_968, 20),
            (81_920, 40_192, 40),
            (81_920, 80_384, 80),
            (40_960, 4_864, 5),
            (40_960, 19_968, 20),
            (24_576, 5_836, 6),
            (24_576, 11_672, 12),
        ] {
            assert_eq!(
                rounded_gb(total_mib * MIB, memory_mib),
                Some(gb),
                "{memory_mib} MiB"
            );
        }
        assert_eq!(rounded_gb(0, 1), None);
        assert_eq!(rounded_gb(u64::MAX, u64::MAX), None);
    }

    #[test]
    fn a_placement_that_makes_no_sense_is_none() {
        let of = |start, size| placement(sys::nvmlGpuInstancePlacement_t { start, size });
        assert_eq!(of(4, 4), Some(Placement { start: 4, size: 4 }));
        assert_eq!(of(0, 0), None);
        assert_eq!(of(300, 1), None);
    }
}
