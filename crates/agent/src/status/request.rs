//! Requests to the API server, with a deadline and an error that says what was tried.

use std::time::Duration;

/// Longest wait for an answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// A request that came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The server answered no.
    #[error("the API server refused {what}: {message}{}", .hint.map_or_else(String::new, |hint| format!("; {hint}")))]
    Refused {
        /// What was asked, as `to write an Event`.
        what: &'static str,
        /// The HTTP status.
        code: u16,
        /// What it said.
        message: String,
        /// What to do, where that is plain.
        hint: Option<&'static str>,
    },
    /// It could not be asked.
    #[error("the API server can't be reached {what}: {reason}")]
    Unreachable {
        /// What was asked.
        what: &'static str,
        /// Why not.
        reason: String,
    },
    /// It didn't answer in time.
    #[error("the API server did not answer within {} s {what}", DEADLINE.as_secs())]
    Silent {
        /// What was asked.
        what: &'static str,
    },
    /// The node is unknown there.
    #[error(
        "the API server knows no node `{0}`; the kubelet registers it, or the agent was given another name"
    )]
    NoNode(String),
}

impl Trouble {
    /// True where what was asked for isn't there.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Refused { code: 404, .. })
    }

    /// True where something of this name is there already.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { code: 409, .. })
    }
}

/// The answer to a request, within the deadline.
pub(super) async fn answered<T>(
    what: &'static str,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Trouble> {
    match tokio::time::timeout(DEADLINE, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) => Err(Trouble::Refused {
            what,
            code: status.code,
            hint: match status.code {
                403 => {
                    Some("look at the roles and the admission policy of the agent: kubectl apply -k deploy")
                }
                _ => None,
            },
            message: if status.message.is_empty() {
                status.reason.clone()
            } else {
                status.message.clone()
            },
        }),
        Ok(Err(error)) => Err(Trouble::Unreachable {
            what,
            reason: whole(&error),
        }),
        Err(_) => Err(Trouble::Silent { what }),
    }
}

/// An error and what is behind it: what kube says by itself is that a service failed.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}
