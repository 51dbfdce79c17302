//! What to upgrade to: `rke2=1.36.2`, `k3s=1.35.7`, `driver=595.58`.

use pitcrew_host::facts::DistributionKind;
use semver::Version;

/// What to upgrade to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The distribution and its release.
    pub distribution: Option<(DistributionKind, Version)>,
    /// The driver.
    pub driver: Option<DriverTarget>,
}

/// A driver to upgrade to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverTarget {
    /// As it was written, e.g. `595.58.03` or `595`.
    pub version: String,
    /// The branch.
    pub branch: u32,
}

/// What was asked for can't be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// There is no `=`.
    #[error("`{0}` is not NAME=VERSION")]
    NoVersion(String),
    /// The name is none of ours.
    #[error("`{0}` can't be upgraded: names are `rke2`, `k3s` and `driver`")]
    UnknownName(String),
    /// The version is none.
    #[error("`{version}` is not a version of {name} such as `{example}`")]
    NotAVersion {
        /// The name before the `=`.
        name: String,
        /// What follows it.
        version: String,
        /// A good one.
        example: &'static str,
    },
    /// Two of what there can be one of.
    #[error("`{0}` is given twice, or beside another distribution")]
    Twice(String),
    /// Nothing was asked for.
    #[error("nothing to upgrade to is given")]
    Nothing,
}

impl Target {
    /// From words such as `rke2=1.36.2` and `driver=595.58`.
    pub fn parse<S: AsRef<str>>(words: &[S]) -> Result<Self, TargetError> {
        let mut target = Self {
            distribution: None,
            driver: None,
        };
        for word in words.iter().map(AsRef::as_ref).map(str::trim) {
            let (name, version) = word
                .split_once('=')
                .ok_or_else(|| TargetError::NoVersion(word.to_owned()))?;
            let (name, version) = (name.trim(), version.trim());
            let twice = match name {
                "rke2" => {
                    let release = release(name, version, "1.36.2")?;
                    target
                        .distribution
                        .replace((DistributionKind::Rke2, release))
                        .is_some()
                }
                "k3s" => {
                    let release = release(name, version, "1.36.2")?;
                    target
                        .distribution
                        .replace((DistributionKind::K3s, release))
                        .is_some()
                }
                "driver" => target.driver.replace(driver(version)?).is_some(),
                _ => return Err(TargetError::UnknownName(name.to_owned())),
            };
            if twice {
                return Err(TargetError::Twice(name.to_owned()));
            }
        }
        if target.distribution.is_none() && target.driver.is_none() {
            return Err(TargetError::Nothing);
        }
        Ok(target)
    }
}

fn release(name: &str, version: &str, example: &'static str) -> Result<Version, TargetError> {
    let digits = version.strip_prefix('v').unwrap_or(version);
    Version::parse(digits).map_err(|_| TargetError::NotAVersion {
        name: name.to_owned(),
        version: version.to_owned(),
        example,
    })
}

/// A driver's versions are no semantic ones: 580.159.04 has a zero in front, 595.58 two parts, a branch one.
fn driver(version: &str) -> Result<DriverTarget, TargetError> {
    let refused = || TargetError::NotAVersion {
        name: "driver".to_owned(),
        version: version.to_owned(),
        example: "595.58",
    };
    let parts: Vec<&str> = version.split('.').collect();
    let are_numbers = parts
        .iter()
        .all(|part| !part.is_empty() && part.len() <= 4 && part.bytes().all(|byte| byte.is_ascii_digit()));
    if parts.len() > 3 || !are_numbers {
        return Err(refused());
    }
    let branch = parts.first().and_then(|branch| branch.parse().ok());
    Ok(DriverTarget {
        version: version.to_owned(),
        branch: branch.ok_or_else(refused)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_versions_are_understood_as_people_write_them() {
        let target = Target::parse(&["rke2=v1.36.2+rke2r1", " driver = 595.58 "]).unwrap();
        let (kind, version) = target.distribution.unwrap();
        assert_eq!(
            (kind, version.to_string().as_str()),
            (DistributionKind::Rke2, "1.36.2+rke2r1")
        );
        assert_eq!(target.driver.unwrap().branch, 595);
        assert_eq!(
            Target::parse(&["driver=580.159.04"])
                .unwrap()
                .driver
                .unwrap()
                .branch,
            580
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_an_example() {
        let refused = |words: &[&str]| Target::parse(words).unwrap_err().to_string();
        assert_eq!(refused(&["rke2"]), "`rke2` is not NAME=VERSION");
        assert_eq!(
            refused(&["containerd=2.3"]),
            "`containerd` can't be upgraded: names are `rke2`, `k3s` and `driver`"
        );
        assert_eq!(
            refused(&["k3s=1.36"]),
            "`1.36` is not a version of k3s such as `1.36.2`"
        );
        assert_eq!(
            refused(&["driver=newest"]),
            "`newest` is not a version of driver such as `595.58`"
        );
        assert_eq!(
            refused(&["rke2=1.36.2", "k3s=1.36.2"]),
            "`k3s` is given twice, or beside another distribution"
        );
        assert_eq!(Target::parse::<&str>(&[]), Err(TargetError::Nothing));
    }

    proptest::proptest! {
        #[test]
        fn any_words_are_understood_or_refused(words in proptest::collection::vec("(rke2|k3s|driver)?=?v?[0-9.+a-z\\PC]{0,12}", 0..4)) {
            let _ = Target::parse(&words);
        }
    }
}
