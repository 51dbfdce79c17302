//! Which drivers run a card.

use std::fmt;

use serde::Serialize;

use super::{Architecture, Card};

/// NVIDIA's open kernel modules, or the proprietary ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KernelModules {
    /// Before Turing: the open modules don't know the card.
    ProprietaryOnly,
    /// Turing to Hopper.
    Either,
    /// Blackwell, and Hopper with a Grace CPU: the proprietary modules don't know the card.
    OpenOnly,
}

/// Which drivers run a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DriverSupport {
    /// Last branch that knows the card; `None` while it is still supported. R580 is the last for Maxwell to Volta.
    pub last_branch: Option<u32>,
    /// Kernel modules that know the card.
    pub kernel_modules: KernelModules,
}

impl fmt::Display for DriverSupport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.last_branch {
            Some(branch) => write!(f, "up to R{branch}")?,
            None => f.write_str("any current")?,
        }
        f.write_str(match self.kernel_modules {
            KernelModules::ProprietaryOnly => ", proprietary kernel modules only",
            KernelModules::Either => ", open or proprietary kernel modules",
            KernelModules::OpenOnly => ", open kernel modules only",
        })
    }
}

/// A driver doesn't run a card.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnsupportedDriver {
    /// The text is no driver version.
    #[error("`{0}` is not a driver version such as `580.159.04`")]
    NotAVersion(String),
    /// The driver has dropped the card.
    #[error("driver {version} no longer knows the {card}: R{last_branch} is the last branch that does")]
    TooNew {
        /// The driver.
        version: String,
        /// The card.
        card: String,
        /// The last branch that knows it.
        last_branch: u32,
    },
}

impl Card {
    /// Which drivers run this card.
    pub fn driver_support(&self) -> DriverSupport {
        DriverSupport {
            last_branch: (self.architecture <= Architecture::Volta).then_some(580),
            kernel_modules: if self.architecture < Architecture::Turing {
                KernelModules::ProprietaryOnly
            } else if self.architecture == Architecture::Blackwell || self.name.starts_with("GH200") {
                KernelModules::OpenOnly
            } else {
                KernelModules::Either
            },
        }
    }

    /// The first branch of the driver that can know the card: that of the first CUDA with its compute capability, or
    /// the card's own where NVIDIA states one. `None` where we have no source.
    ///
    /// Sources: fact sheets `prove` 2.1 (CUDA and driver branches) and `devices` 3.6 (minimum drivers of A100, H100 and
    /// B200).
    pub fn first_branch(&self) -> Option<u32> {
        match (self.compute_capability.major, self.compute_capability.minor) {
            (6, _) => Some(367),
            (7, 0) => Some(384),
            (7, 5) => Some(410),
            (8, 0) => Some(450),
            (8, 6) => Some(455),
            (8, 9) => Some(520),
            (9, 0) => Some(525),
            (10 | 12, 0) => Some(570),
            (10, 3) | (12, 1) => Some(575),
            _ => None,
        }
    }

    /// Whether a driver of this version still knows the card.
    pub fn runs_on(&self, driver: &str) -> Result<(), UnsupportedDriver> {
        let branch: u32 = driver
            .split('.')
            .next()
            .and_then(|branch| branch.parse().ok())
            .ok_or_else(|| UnsupportedDriver::NotAVersion(driver.to_owned()))?;
        match self.driver_support().last_branch {
            Some(last_branch) if branch > last_branch => Err(UnsupportedDriver::TooNew {
                version: driver.to_owned(),
                card: self.name.clone(),
                last_branch,
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::catalog::find;

    #[test]
    fn r580_is_the_last_branch_for_volta_and_older() {
        let v100 = find("V100 SXM2 32GB").unwrap();
        assert!(v100.runs_on("580.159.04").is_ok());
        assert_eq!(
            v100.runs_on("595.10").unwrap_err().to_string(),
            "driver 595.10 no longer knows the Tesla V100 SXM2 32GB: R580 is the last branch that does"
        );
        assert!(find("T4").unwrap().runs_on("615.71.09").is_ok());
        assert!(v100.runs_on("newest").is_err());
    }

    #[test]
    fn no_driver_knows_a_card_before_its_time() {
        let first = |name| find(name).unwrap().first_branch();
        assert_eq!(first("A100 SXM4 80GB"), Some(450));
        assert_eq!(first("H100 SXM5"), Some(525));
        assert_eq!(first("B200"), Some(570));
        assert_eq!(first("M60"), None);
    }

    #[test]
    fn blackwell_needs_the_open_kernel_modules() {
        let support = |name| find(name).unwrap().driver_support().to_string();
        assert_eq!(support("B200"), "any current, open kernel modules only");
        assert_eq!(
            support("H100 SXM5"),
            "any current, open or proprietary kernel modules"
        );
        assert_eq!(support("P40"), "up to R580, proprietary kernel modules only");
    }
}
