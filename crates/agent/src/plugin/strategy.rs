//! How a container is told its devices: chosen by what the node's runtime can do.

use std::fmt;

use crate::runtime::Tier;

/// Minor release of Kubernetes 1 from which a kubelet hands names of CDI devices on to the runtime, if it isn't told
/// otherwise (KEP-4009: beta in 1.29).
const CDI_DEVICES_SINCE: u64 = 29;

/// How the answer to the kubelet names devices. All but the last are NVIDIA's device-list strategies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Strategy {
    /// `cdi-cri`: names of CDI devices, in a field of their own.
    CdiCri,
    /// `cdi-annotations`: names of CDI devices, in an annotation of the container.
    CdiAnnotations,
    /// `envvar`: ids in `NVIDIA_VISIBLE_DEVICES`, for a wrapper of the runtime.
    Envvar,
    /// `volume-mounts`: ids as mounts of `/dev/null`, for a wrapper of the runtime.
    VolumeMounts,
    /// Ours: the device nodes and libraries themselves, for a runtime that knows no CDI.
    Mounts,
}

impl Strategy {
    /// True where the runtime looks names up in CDI specifications.
    pub fn is_cdi(self) -> bool {
        matches!(self, Self::CdiCri | Self::CdiAnnotations)
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CdiCri => "cdi-cri",
            Self::CdiAnnotations => "cdi-annotations",
            Self::Envvar => "envvar",
            Self::VolumeMounts => "volume-mounts",
            Self::Mounts => "mounts",
        })
    }
}

/// What was chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// The strategies, none twice; empty while the runtime isn't known: then nothing can be handed out.
    pub strategies: Vec<Strategy>,
    /// What was asked for and is not done, with the reason: one sentence each, without a period.
    pub remarks: Vec<String>,
}

/// Chooses strategies for a node.
///
/// `asked` is what the configuration names, empty where it names nothing. `kubelet` is its version, major and minor,
/// where that is known; an unknown one is taken for a supported one.
///
/// What is asked for is done where it works, and beside it always one strategy that works for every pod: one that
/// needs a wrapper reaches only pods with its `runtimeClassName`.
pub fn choose(tier: Tier, asked: &[Strategy], kubelet: Option<(u64, u64)>) -> Choice {
    let passes_names = kubelet.is_none_or(|(major, minor)| major > 1 || minor >= CDI_DEVICES_SINCE);
    let why_not = |strategy: Strategy| match (tier, strategy) {
        (Tier::Native, Strategy::CdiCri) if !passes_names => Some(format!(
            "a kubelet before 1.{CDI_DEVICES_SINCE} hands no names of CDI devices on"
        )),
        (Tier::Native, Strategy::CdiCri | Strategy::CdiAnnotations)
        | (Tier::Mounts, Strategy::Mounts)
        | (Tier::Handler, Strategy::CdiAnnotations | Strategy::Envvar | Strategy::VolumeMounts) => None,
        (Tier::Native, Strategy::Mounts) => Some("this runtime takes CDI devices".to_owned()),
        (Tier::Native | Tier::Mounts, Strategy::Envvar | Strategy::VolumeMounts) => Some(
            "only a wrapper of the runtime reads it, and this node needs none; pods get their GPUs without"
                .to_owned(),
        ),
        (Tier::Mounts, Strategy::CdiCri | Strategy::CdiAnnotations) => {
            Some("containerd before 2.0 takes no CDI devices unless it is told to".to_owned())
        }
        (Tier::Handler, Strategy::CdiCri) => Some("the wrapper of the runtime isn't told them".to_owned()),
        (Tier::Handler, Strategy::Mounts) => Some("the wrapper of the runtime adds them".to_owned()),
        (Tier::Unknown, _) => Some("the container runtime isn't known yet".to_owned()),
    };
    let mut choice = Choice::default();
    for &strategy in asked {
        match why_not(strategy) {
            None if choice.strategies.contains(&strategy) => {}
            None => choice.strategies.push(strategy),
            // Before the runtime is known nothing is chosen, so nothing is left out either.
            Some(_) if tier == Tier::Unknown => {}
            Some(why) => choice
                .remarks
                .push(format!("device-list strategy `{strategy}` is ignored: {why}")),
        }
    }
    if choice.strategies.is_empty() {
        choice.strategies = match tier {
            Tier::Unknown => Vec::new(),
            Tier::Native if passes_names => vec![Strategy::CdiCri],
            Tier::Native => vec![Strategy::CdiAnnotations],
            Tier::Mounts => vec![Strategy::Mounts],
            // A mount can't be set from an image, as the variable can.
            Tier::Handler => vec![Strategy::VolumeMounts],
        };
    }
    choice
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Strategy; 5] = [
        Strategy::CdiCri,
        Strategy::CdiAnnotations,
        Strategy::Envvar,
        Strategy::VolumeMounts,
        Strategy::Mounts,
    ];

    #[test]
    fn the_runtime_decides_where_nothing_is_asked_for() {
        for (tier, kubelet, expected) in [
            (Tier::Native, Some((1, 31)), vec![Strategy::CdiCri]),
            (Tier::Native, Some((1, 29)), vec![Strategy::CdiCri]),
            (Tier::Native, None, vec![Strategy::CdiCri]),
            (Tier::Native, Some((1, 28)), vec![Strategy::CdiAnnotations]),
            (Tier::Mounts, Some((1, 28)), vec![Strategy::Mounts]),
            (Tier::Handler, Some((1, 30)), vec![Strategy::VolumeMounts]),
            (Tier::Unknown, Some((1, 34)), vec![]),
        ] {
            let choice = choose(tier, &[], kubelet);
            assert_eq!(choice.strategies, expected, "{tier:?} {kubelet:?}");
            assert_eq!(choice.remarks, [""; 0], "{tier:?} {kubelet:?}");
        }
    }

    /// Pain 4 of the reference: a GPU that a wrapper adds behind the runtime's back is lost at `systemctl
    /// daemon-reload`; one that the runtime itself adds isn't.
    #[test]
    fn pain_4_the_runtime_itself_adds_the_devices_wherever_it_can() {
        let choice = choose(Tier::Native, &[Strategy::Envvar], Some((1, 33)));
        assert_eq!(choice.strategies, [Strategy::CdiCri]);
        assert_eq!(choice.remarks.len(), 1);
        assert!(choice.remarks[0].contains("`envvar`"), "{:?}", choice.remarks);
        let choice = choose(Tier::Mounts, &[Strategy::VolumeMounts], Some((1, 29)));
        assert_eq!(choice.strategies, [Strategy::Mounts]);
    }

    #[test]
    fn what_is_asked_for_is_done_where_it_works() {
        let asked = [
            Strategy::CdiAnnotations,
            Strategy::CdiCri,
            Strategy::CdiAnnotations,
        ];
        let choice = choose(Tier::Native, &asked, Some((1, 34)));
        assert_eq!(choice.strategies, [Strategy::CdiAnnotations, Strategy::CdiCri]);
        assert_eq!(choice.remarks, [""; 0]);
        let choice = choose(Tier::Handler, &[Strategy::Envvar], None);
        assert_eq!(choice.strategies, [Strategy::Envvar]);
    }

    #[test]
    fn a_known_runtime_always_gets_a_strategy_and_a_reason_for_each_that_is_left_out() {
        for tier in [Tier::Native, Tier::Mounts, Tier::Handler] {
            for kubelet in [None, Some((1, 28)), Some((1, 34))] {
                for asked in ALL {
                    let choice = choose(tier, &[asked], kubelet);
                    let kept = choice.strategies.contains(&asked);
                    assert_eq!(choice.strategies.len(), 1, "{tier:?} {asked}");
                    assert_eq!(
                        choice.remarks.is_empty(),
                        kept || choice.strategies == [asked],
                        "{tier:?} {asked}"
                    );
                }
            }
        }
    }
}
