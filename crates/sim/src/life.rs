//! Life on an imaginary node: pods come through the kubelet, work, and go, in the same order every time.

use std::collections::BTreeMap;
use std::time::Duration;

use pitcrew_scenario::Change;

use crate::dice::{Dice, pick};
use crate::node::Node;

/// Between two steps.
const STEP: Duration = Duration::from_secs(1);
/// What pods do.
const WORK: [&str; 5] = ["train", "infer", "render", "embed", "tune"];

/// A pod that works.
struct Working {
    name: String,
    /// Steps until it ends.
    left: u32,
    /// Load that it swings around, in percent.
    load: u32,
}

impl Node {
    /// Has pods come and go for ever. They ask for one device of what the kubelet has free, and load the GPU that they
    /// got.
    pub async fn live(&self) {
        let mut dice = Dice::new(1);
        let mut working: Vec<Working> = Vec::new();
        for number in 1_u32.. {
            self.machine().advance(STEP);
            let (ended, still): (Vec<_>, Vec<_>) = working.into_iter().partition(|pod| pod.left == 0);
            working = still;
            for pod in ended {
                self.rest(&pod.name);
                self.remove(&pod.name);
            }
            if dice.below(3) == 0
                && let Some(pod) = self.begin(number, &mut dice).await
            {
                working.push(pod);
            }
            for pod in &mut working {
                pod.left -= 1;
                let percent = (pod.load + dice.below(17)).saturating_sub(8).clamp(1, 100);
                self.load(&pod.name, percent);
            }
            tokio::time::sleep(STEP).await;
        }
    }

    /// A pod begins, where there is a free device for it.
    async fn begin(&self, number: u32, dice: &mut Dice) -> Option<Working> {
        let free: BTreeMap<String, usize> = self
            .resources()
            .into_iter()
            .map(|(name, devices)| {
                let free = devices
                    .iter()
                    .filter(|device| device.healthy && device.held_by.is_empty());
                (name, free.count())
            })
            .filter(|(_, free)| *free > 0)
            .collect();
        let names: Vec<&String> = free.keys().collect();
        let resource = pick(&names, dice.below(1 << 16))?;
        let work = pick(&WORK, dice.below(1 << 16))?;
        let name = format!("{work}-{number}");
        // Somebody else may have been quicker.
        self.admit(&name, &[(resource.as_str(), 1)]).await.ok()?;
        Some(Working {
            name,
            left: 20 + dice.below(60),
            load: 30 + dice.below(71),
        })
    }

    fn load(&self, pod: &str, percent: u32) {
        for process in self
            .processes()
            .running()
            .into_iter()
            .filter(|process| process.pod == pod)
        {
            // A GPU that was lost has no load.
            let _ = self.machine().change(&Change::Load {
                gpu: process.gpu,
                percent,
            });
        }
    }

    fn rest(&self, pod: &str) {
        self.load(pod, 0);
    }
}
