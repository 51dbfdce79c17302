//! The main loop.

use crate::Deps;

/// Runs the agent until `shutdown` is ready.
///
/// # Errors
/// Where it can't even begin; what fails later is told and tried again.
pub async fn run(deps: Deps, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error> {
    let _ = deps;
    shutdown.await;
    Ok(())
}

/// Why the agent could not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {}
