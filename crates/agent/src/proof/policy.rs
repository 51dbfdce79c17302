//! What is asked for of proofs: the agent's settings, and what the `GpuNode` says above them.

use std::time::Duration;

use pitcrew_api::gpu_node::{ProofProfile, ProofSpec};
use pitcrew_core::proof::Profile;

/// When GPUs are proved, how much, and what hangs on it. By default nothing is done by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How much is tested.
    pub profile: Profile,
    /// A GPU that no proof holds for is proved: a new one, and all after a boot or a change of the driver.
    pub when_unproven: bool,
    /// A GPU is proved again when its last proof is so old.
    pub every: Option<Duration>,
    /// Every GPU is proved once for each such text.
    pub request: Option<String>,
    /// A GPU goes to pods only while a proof of it holds.
    pub gates_readiness: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            profile: Profile::Prove,
            when_unproven: false,
            every: None,
            request: None,
            gates_readiness: false,
        }
    }
}

impl Policy {
    /// This, and what is wanted of the node above it, field by field. An interval that is none counts as not set: the API
    /// server lets none in.
    #[must_use]
    pub fn with(&self, wanted: Option<&ProofSpec>) -> Self {
        let Some(wanted) = wanted else { return self.clone() };
        let every = wanted.every.as_deref().and_then(parse_every);
        Self {
            profile: wanted.profile.map_or(self.profile, profile),
            when_unproven: wanted.when_unproven.unwrap_or(self.when_unproven),
            every: every.or(self.every),
            request: wanted.request.clone().or_else(|| self.request.clone()),
            gates_readiness: wanted.gates_readiness.unwrap_or(self.gates_readiness),
        }
    }
}

const fn profile(wanted: ProofProfile) -> Profile {
    match wanted {
        ProofProfile::Smoke => Profile::Smoke,
        ProofProfile::Prove => Profile::Prove,
        ProofProfile::Burn => Profile::Burn,
        ProofProfile::Soak => Profile::Soak,
    }
}

/// An interval in hours or days, `12h` or `7d`; none for anything else.
pub fn parse_every(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let number = text.strip_suffix(unit)?;
    let is_plain = (1..=4).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = number.parse().ok().filter(|number| is_plain && *number > 0)?;
    match unit {
        'h' => Some(Duration::from_secs(number * 3600)),
        'd' => Some(Duration::from_secs(number * 86_400)),
        _ => None,
    }
}
