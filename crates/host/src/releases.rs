//! What each release of RKE2 and K3s ships: containerd, and what follows from its version.
//!
//! Source: the `Dockerfile` of each RKE2 tag, by minor version: the first tag, the tags at which containerd moved to
//! another series, and the newest release of that series that was seen. K3s ships the same containerd releases in the
//! same months, so a K3s version is looked up as the RKE2 version of that number; [`Basis`] says which it was. Versions
//! of minors that are not in the table are unknown, not guessed.

use std::cmp::Ordering;

use semver::Version;

use crate::facts::DistributionKind;

/// One stretch of releases of a minor with one series of containerd.
struct Stretch {
    /// Minor version of Kubernetes; the major is 1.
    minor: u64,
    /// First patch version of the stretch.
    patch: u64,
    /// First revision (`+rke2rN`) of that patch version.
    revision: u64,
    /// containerd in the first release of the stretch.
    first: Version,
    /// The newest containerd that was seen in the stretch.
    newest: Version,
}

const fn stretch(minor: u64, (patch, revision): (u64, u64), first: [u64; 3], newest: [u64; 3]) -> Stretch {
    Stretch {
        minor,
        patch,
        revision,
        first: Version::new(first[0], first[1], first[2]),
        newest: Version::new(newest[0], newest[1], newest[2]),
    }
}

/// In ascending order.
static STRETCHES: [Stretch; 25] = [
    stretch(25, (0, 1), [1, 6, 8], [1, 6, 8]),
    stretch(25, (10, 1), [1, 7, 1], [1, 7, 7]),
    stretch(26, (0, 1), [1, 6, 12], [1, 6, 12]),
    stretch(26, (5, 1), [1, 7, 1], [1, 7, 11]),
    stretch(27, (0, 1), [1, 6, 19], [1, 6, 19]),
    stretch(27, (2, 1), [1, 7, 1], [1, 7, 20]),
    stretch(28, (0, 1), [1, 7, 3], [1, 7, 22]),
    stretch(29, (0, 1), [1, 7, 11], [1, 7, 26]),
    stretch(30, (0, 1), [1, 7, 11], [1, 7, 27]),
    stretch(31, (0, 1), [1, 7, 20], [1, 7, 20]),
    stretch(31, (6, 1), [2, 0, 2], [2, 0, 2]),
    stretch(31, (13, 1), [2, 1, 4], [2, 1, 5]),
    stretch(32, (0, 1), [1, 7, 23], [1, 7, 23]),
    stretch(32, (2, 1), [2, 0, 2], [2, 0, 2]),
    stretch(32, (9, 1), [2, 1, 4], [2, 1, 4]),
    stretch(32, (13, 2), [2, 2, 2], [2, 2, 2]),
    stretch(33, (0, 1), [2, 0, 4], [2, 0, 4]),
    stretch(33, (5, 1), [2, 1, 4], [2, 1, 4]),
    stretch(33, (10, 1), [2, 2, 2], [2, 2, 6]),
    stretch(34, (0, 1), [2, 1, 4], [2, 1, 4]),
    stretch(34, (6, 1), [2, 2, 2], [2, 2, 6]),
    stretch(35, (0, 1), [2, 1, 5], [2, 1, 5]),
    stretch(35, (3, 1), [2, 2, 2], [2, 2, 6]),
    stretch(36, (0, 1), [2, 2, 3], [2, 2, 3]),
    stretch(36, (2, 1), [2, 3, 2], [2, 3, 3]),
];

/// How sure an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// Read in the release's own build file.
    BuildFile,
    /// Concluded from the sister distribution's release of the same number.
    SisterRelease,
}

/// The containerd that a release ships.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShippedContainerd {
    /// The release ships this one or a later one of the same series.
    pub lowest: Version,
    /// The newest of the series that was seen in this stretch of releases.
    pub newest_seen: Version,
    /// How sure that is.
    pub basis: Basis,
}

impl ShippedContainerd {
    /// The series, e.g. `2.1`: what every release of the stretch has in common.
    pub fn series(&self) -> String {
        format!("{}.{}", self.lowest.major, self.lowest.minor)
    }
}

/// The containerd that a release of a distribution ships; `None` where it isn't known: kubeadm brings none, and a
/// minor version may be newer than the table.
pub fn containerd_for(kind: DistributionKind, version: &Version) -> Option<ShippedContainerd> {
    let basis = match kind {
        DistributionKind::Rke2 => Basis::BuildFile,
        DistributionKind::K3s => Basis::SisterRelease,
        DistributionKind::Kubeadm | DistributionKind::None => return None,
    };
    let mut stretches = STRETCHES.iter().rev();
    let stretch = stretches.find(|stretch| starts_before(stretch, version))?;
    (version.major == 1 && stretch.minor == version.minor).then(|| ShippedContainerd {
        lowest: stretch.first.clone(),
        newest_seen: stretch.newest.clone(),
        basis,
    })
}

fn starts_before(stretch: &Stretch, version: &Version) -> bool {
    let start = (stretch.minor, stretch.patch);
    match start.cmp(&(version.minor, version.patch)) {
        Ordering::Less => true,
        // A version without its revision may be any of them; the first is what is certain.
        Ordering::Equal => stretch.revision <= revision(version).unwrap_or(1),
        Ordering::Greater => false,
    }
}

/// N of `+rke2rN` or `+k3sN`; `None` where the version doesn't carry one.
pub fn revision(version: &Version) -> Option<u64> {
    let build = version.build.as_str();
    let digits = build
        .strip_prefix("rke2r")
        .or_else(|| build.strip_prefix("k3s"))?;
    digits.parse().ok()
}

/// How a device reaches a container through containerd's own CDI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CdiThroughCri {
    /// Not at all.
    No,
    /// Only where `enable_cdi` is set in the configuration.
    OffByDefault,
    /// Without any configuration.
    Yes,
}

/// Whether containerd takes the CDI names that a device plugin answers (`CDIDevices` of the CRI): never in 1.6, in 1.7
/// from 1.7.2 on where it is switched on, by default since 2.0.
pub fn cdi_through_cri(containerd: &Version) -> CdiThroughCri {
    match (containerd.major, containerd.minor, containerd.patch) {
        (0, ..) | (1, 0..=6, _) | (1, 7, 0..=1) => CdiThroughCri::No,
        (1, ..) => CdiThroughCri::OffByDefault,
        _ => CdiThroughCri::Yes,
    }
}

/// Whether an NRI plugin can ask containerd for CDI devices: from 2.1 on, and in 1.7 from 1.7.30 on.
pub fn cdi_through_nri(containerd: &Version) -> bool {
    match (containerd.major, containerd.minor) {
        (0, _) | (1, 0..=6) | (2, 0) => false,
        (1, 7) => containerd.patch >= 30,
        _ => true,
    }
}

/// Whether the NRI socket is there without any configuration: since 2.0.
pub fn nri_by_default(containerd: &Version) -> bool {
    containerd.major >= 2
}

/// Generation of the configuration that RKE2 and K3s render for this containerd.
pub fn config_generation(containerd: &Version) -> u32 {
    if containerd.major >= 2 { 3 } else { 2 }
}

/// Whether a release creates a `RuntimeClass` `nvidia` by itself; `None` where that isn't known.
///
/// RKE2: chart `rke2-runtimeclasses` since 1.29.13, 1.30.9, 1.31.5 and 1.32.1. K3s: since 1.29.0, and in backports to
/// 1.26 to 1.28 whose first patch versions are not established.
pub fn ships_runtime_class(kind: DistributionKind, version: &Version) -> Option<bool> {
    if version.major != 1 {
        return None;
    }
    match kind {
        DistributionKind::Rke2 => Some(match version.minor {
            0..=28 => false,
            29 => version.patch >= 13,
            30 => version.patch >= 9,
            31 => version.patch >= 5,
            32 => version.patch >= 1,
            _ => true,
        }),
        DistributionKind::K3s => match version.minor {
            0..=25 => Some(false),
            26..=28 => None,
            _ => Some(true),
        },
        DistributionKind::Kubeadm | DistributionKind::None => Some(false),
    }
}

/// Whether a release looks for `nvidia-container-runtime.cdi` and makes the handler `nvidia-cdi` of it: since 1.28.15,
/// 1.29.10, 1.30.6 and 1.31.2.
pub fn detects_cdi_runtime(version: &Version) -> bool {
    match (version.major, version.minor) {
        (1, 0..=27) => false,
        (1, 28) => version.patch >= 15,
        (1, 29) => version.patch >= 10,
        (1, 30) => version.patch >= 6,
        (1, 31) => version.patch >= 2,
        _ => true,
    }
}

/// Whether a release renders an `imports` line, so that drop-ins beside the configuration are read.
///
/// Not before 1.32.13+rke2r2, 1.33.10, 1.34.6 and 1.35.3, and surely in 1.35.7 and 1.36; between them it isn't
/// established, and the rendered configuration of the node is what tells.
pub fn renders_imports(version: &Version) -> Option<bool> {
    let patch = version.patch;
    match (version.major, version.minor) {
        (1, 0..=31) => Some(false),
        (1, 32) if patch < 13 || (patch == 13 && revision(version).unwrap_or(1) < 2) => Some(false),
        (1, 33) if patch < 10 => Some(false),
        (1, 34) if patch < 6 => Some(false),
        (1, 35) if patch < 3 => Some(false),
        (1, 35) if patch >= 7 => Some(true),
        (1, 36) => Some(true),
        _ => None,
    }
}

/// The highest CUDA version that a branch of the driver runs, as major and minor; `None` for a branch that isn't in
/// the table.
///
/// Source: NVIDIA's CUDA release notes, "CUDA Toolkit and corresponding driver versions".
pub fn cuda_of_branch(branch: u32) -> Option<(u32, u32)> {
    const BRANCHES: [(u32, (u32, u32)); 20] = [
        (410, (10, 0)),
        (418, (10, 1)),
        (440, (10, 2)),
        (450, (11, 0)),
        (455, (11, 1)),
        (460, (11, 2)),
        (470, (11, 4)),
        (510, (11, 6)),
        (520, (11, 8)),
        (525, (12, 0)),
        (530, (12, 1)),
        (535, (12, 2)),
        (545, (12, 3)),
        (550, (12, 4)),
        (555, (12, 5)),
        (560, (12, 6)),
        (565, (12, 7)),
        (570, (12, 8)),
        (575, (12, 9)),
        (580, (13, 0)),
    ];
    const LATER: [(u32, (u32, u32)); 3] = [(590, (13, 1)), (595, (13, 2)), (615, (13, 4))];
    let mut all = BRANCHES.iter().chain(&LATER);
    all.find(|(known, _)| *known == branch).map(|(_, cuda)| *cuda)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    fn shipped(text: &str) -> Option<String> {
        containerd_for(DistributionKind::Rke2, &version(text))
            .map(|it| format!("{}..{}", it.lowest, it.newest_seen))
    }

    #[test]
    fn containerd_is_that_of_the_stretch_a_release_lies_in() {
        let cases = [
            ("1.25.9+rke2r1", "1.6.8..1.6.8"),
            ("1.25.10+rke2r1", "1.7.1..1.7.7"),
            ("1.28.15+rke2r1", "1.7.3..1.7.22"),
            ("1.31.5+rke2r1", "1.7.20..1.7.20"),
            ("1.31.6+rke2r1", "2.0.2..2.0.2"),
            ("1.31.13+rke2r1", "2.1.4..2.1.5"),
            ("1.32.1+rke2r1", "1.7.23..1.7.23"),
            ("1.32.13+rke2r1", "2.1.4..2.1.4"),
            ("1.32.13+rke2r2", "2.2.2..2.2.2"),
            ("1.32.13", "2.1.4..2.1.4"),
            ("1.36.1+rke2r1", "2.2.3..2.2.3"),
            ("1.36.2+rke2r1", "2.3.2..2.3.3"),
            ("1.36.99+rke2r9", "2.3.2..2.3.3"),
        ];
        for (release, expected) in cases {
            assert_eq!(shipped(release).as_deref(), Some(expected), "{release}");
        }
    }

    #[test]
    fn what_is_not_in_the_table_is_not_guessed() {
        for release in [
            "1.24.17+rke2r1",
            "1.37.0+rke2r1",
            "1.40.2+rke2r1",
            "2.0.0",
            "0.9.0",
        ] {
            assert_eq!(shipped(release), None, "{release}");
        }
        assert_eq!(
            containerd_for(DistributionKind::Kubeadm, &version("1.34.2")),
            None
        );
        let k3s = containerd_for(DistributionKind::K3s, &version("1.34.6+k3s1")).unwrap();
        assert_eq!((k3s.series().as_str(), k3s.basis), ("2.2", Basis::SisterRelease));
    }

    #[test]
    fn the_table_ascends_and_each_stretch_has_one_series() {
        for pair in STRETCHES.windows(2) {
            let key = |it: &Stretch| (it.minor, it.patch, it.revision);
            assert!(key(&pair[0]) < key(&pair[1]));
            if pair[0].minor == pair[1].minor {
                assert!(pair[0].newest < pair[1].first, "{:?}", key(&pair[1]));
            }
        }
        for it in &STRETCHES {
            assert_eq!(
                (it.first.major, it.first.minor),
                (it.newest.major, it.newest.minor)
            );
            assert!(it.first <= it.newest);
        }
    }

    #[test]
    fn cdi_and_nri_follow_from_the_version_of_containerd() {
        use CdiThroughCri::{No, OffByDefault, Yes};
        let cases = [
            ("1.6.38", No, false),
            ("1.7.1", No, false),
            ("1.7.2", OffByDefault, false),
            ("1.7.29", OffByDefault, false),
            ("1.7.30", OffByDefault, true),
            ("2.0.2", Yes, false),
            ("2.1.4", Yes, true),
            ("2.3.3", Yes, true),
        ];
        for (containerd, cri, nri) in cases {
            let containerd = version(containerd);
            assert_eq!(cdi_through_cri(&containerd), cri, "{containerd}");
            assert_eq!(cdi_through_nri(&containerd), nri, "{containerd}");
        }
        assert!(!nri_by_default(&version("1.7.30")) && nri_by_default(&version("2.0.2")));
        assert_eq!(config_generation(&version("1.7.30")), 2);
        assert_eq!(config_generation(&version("2.0.2")), 3);
    }

    #[test]
    fn runtime_classes_come_with_known_releases() {
        use DistributionKind::{K3s, Kubeadm, Rke2};
        let ships = |kind, release: &str| ships_runtime_class(kind, &version(release));
        assert_eq!(ships(Rke2, "1.31.4+rke2r1"), Some(false));
        assert_eq!(ships(Rke2, "1.31.5+rke2r1"), Some(true));
        assert_eq!(ships(Rke2, "1.36.2+rke2r1"), Some(true));
        assert_eq!(ships(K3s, "1.27.9+k3s1"), None);
        assert_eq!(ships(K3s, "1.29.0+k3s1"), Some(true));
        assert_eq!(ships(Kubeadm, "1.34.0"), Some(false));
    }

    #[test]
    fn imports_are_unknown_where_the_first_release_is_not_established() {
        let imports = |release: &str| renders_imports(&version(release));
        assert_eq!(imports("1.35.2+rke2r1"), Some(false));
        assert_eq!(imports("1.35.3+rke2r1"), None);
        assert_eq!(imports("1.35.7+k3s1"), Some(true));
        assert_eq!(imports("1.32.13+rke2r1"), Some(false));
        assert_eq!(imports("1.32.13+rke2r2"), None);
        assert_eq!(imports("1.36.0+rke2r1"), Some(true));
    }

    #[test]
    fn a_branch_runs_the_cuda_of_its_time() {
        assert_eq!(cuda_of_branch(580), Some((13, 0)));
        assert_eq!(cuda_of_branch(535), Some((12, 2)));
        assert_eq!(cuda_of_branch(610), None);
    }
}
