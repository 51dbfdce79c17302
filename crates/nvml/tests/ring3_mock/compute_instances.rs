//! GPU instances and compute instances, one after the other.

use pitcrew_core::gpu::MigDevice;
use pitcrew_core::mig::Profile;
use pitcrew_core::ports::{GpuError, InventorySource, Mig};
use pitcrew_nvml::Nvml;
use pitcrew_scenario::{Change, Machine};

use crate::cases::{Setting, assert_same, sized_as};

/// Both sides, which must answer alike: the driver over the mock, and the scenario itself.
struct Both {
    nvml: Nvml,
    machine: Machine,
}

impl Both {
    /// What both say.
    fn ask<T: PartialEq + std::fmt::Debug>(
        &mut self,
        ask: impl Fn(&mut dyn Mig) -> Result<T, GpuError>,
    ) -> T {
        let real = ask(&mut self.nvml).unwrap();
        assert_eq!(real, ask(&mut self.machine).unwrap());
        real
    }

    /// A device that both make.
    fn make(&mut self, make: impl Fn(&mut dyn Mig) -> Result<MigDevice, GpuError>) -> MigDevice {
        let real = make(&mut self.nvml).unwrap();
        let expected = make(&mut self.machine).unwrap();
        assert_eq!(sized_as(&real, &expected), expected);
        real
    }

    /// Why both refuse.
    fn refuse<T: std::fmt::Debug>(&mut self, ask: impl Fn(&mut dyn Mig) -> Result<T, GpuError>) -> String {
        let real = ask(&mut self.nvml).unwrap_err();
        assert_eq!(real, ask(&mut self.machine).unwrap_err());
        real.to_string()
    }

    /// Devices on the first GPU; the whole inventory is the same on both sides.
    fn devices(&mut self) -> Vec<MigDevice> {
        let real = self.nvml.inventory().unwrap();
        assert_same(real.clone(), self.machine.inventory().unwrap());
        real.gpus[0].readings.mig_devices.value().unwrap().clone()
    }

    /// The first GPU in MIG mode, with nothing on it.
    fn clear(&mut self, setting: &Setting, uuid: &str) {
        self.ask(|mig| mig.set_mode(uuid, true));
        let gpus = self.machine.inventory().unwrap().gpus;
        if !gpus[0].readings.mig_mode.value().unwrap().current {
            assert!(self.ask(|mig| mig.gpu_instances(uuid)).is_empty());
            // Ampere waits for a reset, which is not NVML's to give.
            setting.change_both(&self.machine, &Change::Reset { gpu: 0 });
        }
        for instance in self.ask(|mig| mig.gpu_instances(uuid)) {
            self.ask(|mig| mig.destroy(uuid, instance.id));
        }
        assert!(self.ask(|mig| mig.gpu_instances(uuid)).is_empty());
    }
}

pub(crate) fn round_trip(setting: &Setting) {
    let mut both = Both {
        nvml: setting.nvml(),
        machine: setting.machine(),
    };
    let uuid = both.machine.uuids()[0].clone();
    let uuid = uuid.as_str();
    both.clear(setting, uuid);

    // The largest that can be had twice.
    let profiles = both.machine.profiles(uuid).unwrap();
    let plain = profiles.iter().map(|known| known.profile.clone());
    let whole = plain
        .filter(|profile| profile.attribute.is_none() && profile.gpu_slices <= 3)
        .max_by_key(|profile| profile.gpu_slices)
        .unwrap();
    assert!(whole.gpu_slices >= 2);
    let part = whole.parts().next().unwrap();
    assert_eq!(part.to_string(), format!("1c.{whole}"));
    let refused = both.refuse(|mig| mig.create_compute_instance(uuid, 0, &part));
    assert!(refused.contains("there is no GPU instance 0"), "{refused}");

    let instance = both.ask(|mig| mig.create_gpu_instance(uuid, &whole, None));
    assert_eq!((instance.id, &instance.profile), (0, &whole));
    assert_eq!(both.ask(|mig| mig.gpu_instances(uuid)), [instance]);
    assert!(both.devices().is_empty(), "a GPU instance alone is no device");
    let empty = both.refuse(|mig| mig.set_mode(uuid, false));
    assert!(empty.contains("1 GPU instances exist"), "{empty}");

    let other: Profile = format!("1c.{}", profiles.last().unwrap().profile)
        .parse()
        .unwrap();
    let refused = both.refuse(|mig| mig.create_compute_instance(uuid, 0, &other));
    assert!(
        refused.contains(&format!("no part `{other}`; it has {part}, ")),
        "{refused}"
    );

    let first = both.make(|mig| mig.create_compute_instance(uuid, 0, &part));
    let second = both.make(|mig| mig.create_compute_instance(uuid, 0, &part));
    let all = both.refuse(|mig| mig.create_compute_instance(uuid, 0, &whole));
    assert!(all.contains("GPU instance 0 has no room for"), "{all}");
    let devices = both.devices();
    assert_eq!(devices.len(), 2);
    for (device, made) in devices.iter().zip([&first, &second]) {
        assert_eq!(
            (
                &device.uuid,
                device.gpu_instance,
                device.compute_instance,
                &device.profile
            ),
            (&made.uuid, 0, made.compute_instance, &part)
        );
        assert!(device.uuid.starts_with("MIG-"));
    }
    assert_ne!(first.uuid, second.uuid);
    assert_eq!((first.compute_instance, second.compute_instance), (0, 1));

    // What is held stays; what lies beside it goes.
    let start = Change::StartProcess {
        gpu: 0,
        pid: 4711,
        memory_bytes: Some(1 << 20),
        gpu_instance: Some(0),
        compute_instance: Some(0),
    };
    setting.change_both(&both.machine, &start);
    for held in [
        both.refuse(|mig| mig.destroy_compute_instance(uuid, 0, 0)),
        both.refuse(|mig| mig.destroy(uuid, 0)),
    ] {
        assert!(held.contains("process 4711 holds it"), "{held}");
    }
    assert_eq!(both.devices().len(), 2, "nothing is destroyed in part");
    both.ask(|mig| mig.destroy_compute_instance(uuid, 0, 1));
    assert_eq!(both.devices().len(), 1);
    let gone = both.refuse(|mig| mig.destroy_compute_instance(uuid, 0, 1));
    assert!(
        gone.contains("GPU instance 0 has no compute instance 1"),
        "{gone}"
    );
    let again = both.make(|mig| mig.create_compute_instance(uuid, 0, &part));
    assert_eq!(again.compute_instance, 1);
    assert_ne!(again.uuid, second.uuid, "a UUID is never used again");
    setting.change_both(&both.machine, &Change::EndProcess { gpu: 0, pid: 4711 });

    both.ask(|mig| mig.destroy_compute_instance(uuid, 0, 0));
    // The rest goes with its GPU instance.
    both.ask(|mig| mig.destroy(uuid, 0));
    assert!(both.devices().is_empty());
    assert!(both.ask(|mig| mig.gpu_instances(uuid)).is_empty());

    // In one step, of a part; and nothing is left of one that can't be.
    let device = both.make(|mig| mig.create(uuid, &part, None));
    assert_eq!((device.compute_instance, &device.profile), (0, &part));
    both.ask(|mig| mig.destroy(uuid, device.gpu_instance));
    if let Some(four) = profiles.iter().find(|known| known.profile.gpu_slices == 4) {
        let none: Profile = format!("3c.{}", four.profile).parse().unwrap();
        let refused = both.refuse(|mig| mig.create(uuid, &none, None));
        assert!(refused.contains(&format!("no part `{none}`")), "{refused}");
    }
    assert!(both.ask(|mig| mig.gpu_instances(uuid)).is_empty());
}
