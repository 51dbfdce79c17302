//! Whole GPUs for one container: a set that is well connected.

use std::cmp::Reverse;

use super::Preference;

/// Most sets that are looked at one by one. Of 8 GPUs there are at most 70.
pub const MOST_SETS: u64 = 1000;

/// How good a set is: what its pairs score together, and then how weak its ties to the rest are.
type Worth = (u64, Reverse<u64>);

/// GPUs to choose from, and what choosing each of them brings.
struct Pool<'a> {
    preference: &'a Preference,
    /// Devices that are free.
    free: Vec<usize>,
    /// Ties of each to the ones that are chosen already.
    to_chosen: Vec<u64>,
    /// Ties of each to all others that are free.
    to_free: Vec<u64>,
}

impl Pool<'_> {
    fn between(&self, one: usize, other: usize) -> u64 {
        self.preference.between(self.free[one], self.free[other])
    }

    /// How good it is to add these, given by their places.
    fn worth(&self, set: &[usize]) -> Worth {
        let mut inside = 0;
        let mut chosen = 0;
        let mut free = 0;
        for (at, &one) in set.iter().enumerate() {
            chosen += self.to_chosen[one];
            free += self.to_free[one];
            inside += set[at + 1..]
                .iter()
                .map(|&other| self.between(one, other))
                .sum::<u64>();
        }
        let left = self.to_chosen.iter().sum::<u64>() - chosen;
        (inside + chosen, Reverse(free - 2 * inside + left))
    }

    /// The best of all sets of this size.
    fn exact(&self, size: usize) -> Vec<usize> {
        let mut set: Vec<usize> = (0..size).collect();
        let mut best = (self.worth(&set), set.clone());
        while next(&mut set, self.free.len()) {
            let worth = self.worth(&set);
            if worth > best.0 {
                best = (worth, set.clone());
            }
        }
        best.1
    }

    /// A good set of this size: from each first one, the best next one again and again.
    fn greedy(&self, size: usize) -> Vec<usize> {
        let from = |first: usize| {
            let mut set = vec![first];
            let mut ties = self.to_chosen.clone();
            while set.len() < size {
                let last = set[set.len() - 1];
                for (at, tie) in ties.iter_mut().enumerate() {
                    *tie += self.between(at, last);
                }
                let rest = (0..self.free.len()).filter(|at| !set.contains(at));
                let Some(best) = rest.max_by_key(|&at| (ties[at], Reverse(self.to_free[at]), Reverse(at)))
                else {
                    break;
                };
                set.push(best);
            }
            set
        };
        let sets = (0..self.free.len()).map(from);
        let best = sets
            .enumerate()
            .max_by_key(|(at, set)| (self.worth(set), Reverse(*at)));
        let mut best = best.map(|(_, set)| set).unwrap_or_default();
        best.sort_unstable();
        best
    }
}

/// The next set of the same size in the order of the driver; false after the last.
fn next(set: &mut [usize], of: usize) -> bool {
    let size = set.len();
    let Some(at) = (0..size).rev().find(|&at| set[at] < of - size + at) else {
        return false;
    };
    set[at] += 1;
    for later in at + 1..size {
        set[later] = set[later - 1] + 1;
    }
    true
}

/// How many sets of `size` there are of `of`, at most a little beyond [`MOST_SETS`].
pub(super) fn sets(of: usize, size: usize) -> u64 {
    let mut sets: u64 = 1;
    for step in 0..size.min(of - size) {
        sets = sets * (of - step) as u64 / (step as u64 + 1);
        if sets > MOST_SETS {
            break;
        }
    }
    sets
}

impl Preference {
    /// How well the GPUs of two devices are connected.
    pub(super) fn between(&self, one: usize, other: usize) -> u64 {
        self.scores
            .between(self.devices[one].gpu, self.devices[other].gpu)
            .into()
    }

    /// `wanted` more devices out of those that are `free` (not 0), for one who has `before`.
    pub(super) fn together(&self, free: &[usize], before: &[usize], wanted: usize) -> Vec<usize> {
        let free: Vec<usize> = (0..free.len()).filter(|&device| free[device] > 0).collect();
        if wanted >= free.len() || wanted == 0 {
            return free.into_iter().take(wanted).collect();
        }
        let ties = |device: usize, to: &[usize]| -> u64 {
            let others = to.iter().filter(|other| **other != device);
            others.map(|&other| self.between(device, other)).sum()
        };
        let pool = Pool {
            preference: self,
            to_chosen: free.iter().map(|&device| ties(device, before)).collect(),
            to_free: free.iter().map(|&device| ties(device, &free)).collect(),
            free,
        };
        let set = if sets(pool.free.len(), wanted) <= MOST_SETS {
            pool.exact(wanted)
        } else {
            pool.greedy(wanted)
        };
        set.into_iter().map(|at| pool.free[at]).collect()
    }
}
