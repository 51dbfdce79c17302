//! One turn for a whole cluster: a Lease of Kubernetes, held by one node at a time.
//!
//! A lease that its holder doesn't renew for as long as it says is anybody's. How long that has been is measured here, from
//! the moment at which it was last seen to change, as other clocks in the cluster need not agree with this one.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::Instant;

use crate::status::MANAGER;

/// A lease, as one node sees it.
pub struct ClusterLease {
    api: Api<Lease>,
    name: String,
    holder: String,
    duration: Duration,
    /// What was last seen of another's, and since when it is so.
    seen: Option<(Seen, Instant)>,
}

impl std::fmt::Debug for ClusterLease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterLease")
            .field("name", &self.name)
            .field("holder", &self.holder)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    holder: String,
    renewed: Option<MicroTime>,
    transitions: Option<i32>,
}

/// Whose turn it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// Ours, for the lease's duration from now.
    Ours,
    /// Another node's.
    Others(String),
}

impl ClusterLease {
    /// The lease of that name; nothing is asked of the API server yet.
    pub fn new(client: Client, namespace: &str, name: &str, holder: &str, duration: Duration) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            holder: holder.to_owned(),
            duration,
            seen: None,
        }
    }

    /// Takes it if it is free, renews it if it is ours. `now` is what is written down.
    ///
    /// # Errors
    /// Where the API server doesn't answer, or refuses. Whose it is isn't known then; one that was ours stays so until its
    /// duration is over.
    pub async fn acquire(&mut self, now: Timestamp) -> Result<Turn, kube::Error> {
        let params = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.spec(now, None)),
            };
            return Self::turn(self.api.create(&params, &lease).await);
        };
        let spec = lease.spec.take().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        if !holder.is_empty() && holder != self.holder && !self.is_over(&spec, &holder) {
            return Ok(Turn::Others(holder));
        }
        // The revision that was read goes along, so that of two who find it free one is refused.
        lease.spec = Some(self.spec(now, Some(&spec)));
        let turn = Self::turn(self.api.replace(&self.name, &params, &lease).await)?;
        if turn == Turn::Ours {
            self.seen = None;
        }
        Ok(turn)
    }

    /// Gives it back, if it is ours.
    ///
    /// # Errors
    /// Where the API server doesn't answer, or refuses: it is free when its duration is over.
    pub async fn release(&mut self) -> Result<(), kube::Error> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            return Ok(());
        };
        let Some(spec) = lease.spec.as_mut() else {
            return Ok(());
        };
        if spec.holder_identity.as_ref() != Some(&self.holder) {
            return Ok(());
        }
        spec.holder_identity = None;
        spec.renew_time = None;
        let params = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        match self.api.replace(&self.name, &params, &lease).await {
            // Somebody has taken it meanwhile.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            other => other.map(drop),
        }
    }

    fn spec(&self, now: Timestamp, before: Option<&LeaseSpec>) -> LeaseSpec {
        let is_ours = before.is_some_and(|before| before.holder_identity.as_ref() == Some(&self.holder));
        let transitions = before.and_then(|before| before.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.holder.clone()),
            lease_duration_seconds: i32::try_from(self.duration.as_secs()).ok(),
            acquire_time: match before {
                Some(before) if is_ours => before.acquire_time.clone(),
                _ => Some(MicroTime(now)),
            },
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(if is_ours || before.is_none() {
                transitions
            } else {
                transitions.saturating_add(1)
            }),
            ..LeaseSpec::default()
        }
    }

    /// Whether another's has not changed for as long as it says that it lasts.
    fn is_over(&mut self, spec: &LeaseSpec, holder: &str) -> bool {
        let seen = Seen {
            holder: holder.to_owned(),
            renewed: spec.renew_time.clone(),
            transitions: spec.lease_transitions,
        };
        let lasts = spec
            .lease_duration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(self.duration, Duration::from_secs);
        match &self.seen {
            Some((before, since)) if *before == seen => since.elapsed() >= lasts,
            _ => {
                self.seen = Some((seen, Instant::now()));
                false
            }
        }
    }

    fn turn(written: Result<Lease, kube::Error>) -> Result<Turn, kube::Error> {
        match written {
            Ok(_) => Ok(Turn::Ours),
            // Both "already exists" and "has been modified": somebody was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                Ok(Turn::Others("another node".to_owned()))
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
