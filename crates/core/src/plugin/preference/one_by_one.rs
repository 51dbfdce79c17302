//! Replicas and MIG devices for one container: one after the other.

use std::cmp::{Ordering, Reverse};

use super::Preference;
use crate::plugin::config::SharingPolicy;

/// How much of something is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Taken {
    ids: usize,
    of: usize,
}

impl Taken {
    /// By the part that is taken: two of four are as many as one of two.
    fn cmp(self, other: Self) -> Ordering {
        (self.ids * other.of).cmp(&(other.ids * self.of))
    }
}

/// What is known of a GPU while choosing.
#[derive(Debug, Clone, Copy, Default)]
struct OnGpu {
    /// How much of it is taken, in this resource.
    taken: Taken,
    /// True when something of it was chosen.
    is_chosen: bool,
    /// How well it is connected with the GPUs that something was chosen of.
    ties: u64,
}

/// Devices to choose from.
struct Pool<'a> {
    preference: &'a Preference,
    /// How many ids each device has left.
    free: Vec<usize>,
    gpus: Vec<OnGpu>,
}

impl Pool<'_> {
    /// Notes that something of a GPU was chosen.
    fn choose(&mut self, gpu: usize) {
        if !std::mem::replace(&mut self.gpus[gpu].is_chosen, true) {
            for at in 0..self.gpus.len() {
                self.gpus[at].ties += u64::from(self.preference.scores.between(at, gpu));
            }
        }
    }

    fn taken(&self, device: usize) -> Taken {
        let of = self.preference.devices[device].total;
        Taken {
            ids: of - self.free[device],
            of,
        }
    }

    /// Which of two devices is the better one; of those alike, the first.
    fn better(&self, one: usize, other: usize, policy: Option<SharingPolicy>) -> Ordering {
        let devices = &self.preference.devices;
        let (gpu, other_gpu) = (&self.gpus[devices[one].gpu], &self.gpus[devices[other].gpu]);
        let taken = || self.taken(one).cmp(self.taken(other));
        // Where some devices of a resource are shared and some not, those that aren't are kept for last.
        let shared = || devices[one].total.cmp(&devices[other].total);
        let on_gpus = || gpu.taken.cmp(other_gpu.taken);
        let ties = || gpu.ties.cmp(&other_gpu.ties);
        let order = match policy {
            Some(SharingPolicy::Distributed) => taken()
                .reverse()
                .then_with(shared)
                .then_with(|| other_gpu.is_chosen.cmp(&gpu.is_chosen))
                .then_with(ties)
                .then_with(|| on_gpus().reverse()),
            Some(SharingPolicy::Packed) => taken().then_with(shared).then_with(on_gpus).then_with(ties),
            None => ties().then_with(on_gpus),
        };
        order.then(Reverse(one).cmp(&Reverse(other)))
    }
}

impl Preference {
    /// `wanted` more ids, each given by its device. `free` is how many each device has left, `before` the devices of
    /// those that were chosen already. Without a policy, MIG devices that aren't shared.
    pub(super) fn one_by_one(
        &self,
        free: Vec<usize>,
        before: &[usize],
        wanted: usize,
        policy: Option<SharingPolicy>,
    ) -> Vec<usize> {
        let mut pool = Pool {
            preference: self,
            gpus: vec![OnGpu::default(); self.scores.gpus],
            free,
        };
        for (device, free) in self.devices.iter().zip(&pool.free) {
            let taken = &mut pool.gpus[device.gpu].taken;
            taken.of += device.total;
            taken.ids += device.total - free;
        }
        for &device in before {
            pool.choose(self.devices[device].gpu);
        }
        let mut picks = Vec::with_capacity(wanted.min(pool.free.iter().sum()));
        while picks.len() < wanted {
            let left = (0..pool.free.len()).filter(|&device| pool.free[device] > 0);
            let Some(best) = left.max_by(|&one, &other| pool.better(one, other, policy)) else {
                break;
            };
            pool.free[best] -= 1;
            let gpu = self.devices[best].gpu;
            pool.gpus[gpu].taken.ids += 1;
            pool.choose(gpu);
            picks.push(best);
        }
        picks
    }
}
