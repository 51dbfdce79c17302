//! What the health of GPUs means for the exit status.

use pitcrew_cli::ExitStatus;
use pitcrew_core::health::Verdict;

/// A finding outranks what could not be told: it is certain.
pub(crate) fn status(verdicts: impl IntoIterator<Item = Verdict>) -> ExitStatus {
    verdicts
        .into_iter()
        .fold(ExitStatus::Fine, |status, verdict| match (status, verdict) {
            (_, Verdict::Unhealthy | Verdict::Degraded) => ExitStatus::Finding,
            (ExitStatus::Fine, Verdict::Unknown) => ExitStatus::CouldNotTell,
            (status, Verdict::Unknown | Verdict::Healthy) => status,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_outranks_the_unknown_in_any_order() {
        use Verdict::{Degraded, Healthy, Unhealthy, Unknown};
        assert_eq!(status([]), ExitStatus::Fine);
        assert_eq!(status([Healthy, Healthy]), ExitStatus::Fine);
        assert_eq!(status([Healthy, Unknown]), ExitStatus::CouldNotTell);
        assert_eq!(status([Unknown, Degraded, Unknown]), ExitStatus::Finding);
        assert_eq!(status([Unhealthy, Unknown]), ExitStatus::Finding);
    }
}
