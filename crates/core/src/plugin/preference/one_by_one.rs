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

impl Preference {
    /// `wanted` more ids, each given by its device. `free` is how many each device has left, `before` the devices of
    /// those that were chosen already. Without a policy, MIG devices that aren't shared.
    pub(super) fn one_by_one(
        &self,
        mut free: Vec<usize>,
        before: &[usize],
        wanted: usize,
        policy: Option<SharingPolicy>,
    ) -> Vec<usize> {
        let mut on_gpu = vec![Taken::default(); self.scores.gpus];
        for (device, free) in self.devices.iter().zip(&free) {
            let taken = &mut on_gpu[device.gpu];
            taken.of += device.total;
            taken.ids += device.total - free;
        }
        // How well each GPU is connected with what was chosen; a GPU of it counts once.
        let mut ties = vec![0_u64; self.scores.gpus];
        let mut is_chosen = vec![false; self.scores.gpus];
        let mut choose = |gpu: usize, ties: &mut [u64]| {
            if !std::mem::replace(&mut is_chosen[gpu], true) {
                for (at, tie) in ties.iter_mut().enumerate() {
                    *tie += u64::from(self.scores.between(at, gpu));
                }
            }
        };
        for &device in before {
            choose(self.devices[device].gpu, &mut ties);
        }
        let mut picks = Vec::with_capacity(wanted.min(free.iter().sum()));
        while picks.len() < wanted {
            let taken = |device: usize| Taken {
                ids: self.devices[device].total - free[device],
                of: self.devices[device].total,
            };
            let better = |&one: &usize, &other: &usize| {
                let (gpu_of_one, gpu_of_other) = (self.devices[one].gpu, self.devices[other].gpu);
                let on_gpus = || on_gpu[gpu_of_one].cmp(on_gpu[gpu_of_other]);
                let ties = || ties[gpu_of_one].cmp(&ties[gpu_of_other]);
                // Where some GPUs of a resource are shared and some not, the ones that aren't are kept for last.
                let shared = || self.devices[one].total.cmp(&self.devices[other].total);
                let first = Reverse(one).cmp(&Reverse(other));
                match policy {
                    Some(SharingPolicy::Distributed) => taken(other)
                        .cmp(taken(one))
                        .then_with(shared)
                        .then_with(ties)
                        .then_with(|| on_gpus().reverse()),
                    Some(SharingPolicy::Packed) => taken(one)
                        .cmp(taken(other))
                        .then_with(shared)
                        .then_with(on_gpus)
                        .then_with(ties),
                    None => ties().then_with(on_gpus),
                }
                .then(first)
            };
            let candidates = (0..free.len()).filter(|&device| free[device] > 0);
            let Some(best) = candidates.max_by(better) else {
                break;
            };
            free[best] -= 1;
            let gpu = self.devices[best].gpu;
            on_gpu[gpu].ids += 1;
            choose(gpu, &mut ties);
            picks.push(best);
        }
        picks
    }
}
