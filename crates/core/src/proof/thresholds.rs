//! Where a figure begins to be low, and where bad.

use serde::{Deserialize, Serialize};

use super::Grade;

/// Two borders of a ratio: below the first it is low, below the second bad.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Borders {
    /// Below it, a warning.
    pub warn: f64,
    /// Below it, a failure where the figure can be one.
    pub fail: f64,
}

impl Borders {
    /// The grade of a ratio.
    pub fn grade(self, ratio: f64) -> Grade {
        if ratio < self.fail {
            Grade::Bad
        } else if ratio < self.warn {
            Grade::Low
        } else {
            Grade::Good
        }
    }
}

/// All borders. The usual ones are those of fact sheet `prove`, section 6.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Thresholds {
    /// Efficiency of the SMs at their clock, as a part of what a healthy chip has with the same kernels.
    pub pipe_efficiency: Borders,
    /// Products, as a part of what the card should reach.
    pub tensor: Borders,
    /// Memory.
    pub memory: Borders,
    /// Copies over PCIe.
    pub pcie: Borders,
    /// Copies over NVLink.
    pub nvlink: Borders,
    /// One SM, as a part of the median of all.
    pub sm: f64,
    /// PCIe packets sent again in one run that are nothing special.
    pub pcie_replays: u64,
}

impl Default for Thresholds {
    fn default() -> Self {
        let borders = |warn, fail| Borders { warn, fail };
        Self {
            pipe_efficiency: borders(0.90, 0.80),
            tensor: borders(0.85, 0.70),
            memory: borders(0.92, 0.80),
            pcie: borders(0.85, 0.60),
            nvlink: borders(0.85, 0.60),
            sm: 0.90,
            pcie_replays: 80,
        }
    }
}
