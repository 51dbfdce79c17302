//! The main loop.
//!
//! It looks at the driver and the host, makes one [`Snapshot`](crate::snapshot::Snapshot) of what they say, and sends it
//! to the parts: specifications, device plugin, labels, status. Each part is a task of its own, and none waits for
//! another: an API server that is away, a kubelet that is late, or a driver's call that never returns stops only what
//! needs it. A part that panics is told of and started again.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::Deps;

mod eyes;
mod glance;
mod node;
mod pause;

use eyes::Calls;
use node::Node;

/// Things seen that wait for the main loop.
const WAITING: usize = 64;

/// Runs the agent until `shutdown` is ready.
///
/// What was installed or handed out stays: pods that run need it, and the next agent finds it.
///
/// # Errors
/// Where it can't even begin; what fails later is told and tried again.
pub async fn run(deps: Deps, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error> {
    let deps = Arc::new(deps);
    // Dropped with this future, and all tasks with it.
    let mut parts = JoinSet::new();
    let calls = Arc::new(Calls::default());
    let mut node = Node::new(&deps.settings);
    let (wish, wishes) = watch::channel(node.wish());
    let (snapshots, _) = watch::channel(node.snapshot());
    let (seen, mut sights) = mpsc::channel(WAITING);

    parts.spawn(eyes::gpus(
        Arc::clone(&deps),
        wishes.clone(),
        Arc::clone(&calls),
        seen.clone(),
    ));
    parts.spawn(eyes::host(Arc::clone(&deps), wishes, Arc::clone(&calls), seen));

    let (pause, mut paused) = watch::channel(None);
    parts.spawn(pause::watch(Arc::clone(&deps), pause));

    let main = async {
        loop {
            tokio::select! {
                sight = sights.recv() => match sight {
                    Some(sight) => node.see(sight, Instant::now()),
                    None => return,
                },
                Ok(()) = paused.changed() => node.set_release(paused.borrow_and_update().clone()),
            }
            for notice in node.notices() {
                let _ = deps.notices.send(notice);
            }
            wish.send_if_modified(|old| {
                let new = node.wish();
                let differs = *old != new;
                *old = new;
                differs
            });
            snapshots.send_replace(node.snapshot());
        }
    };
    tokio::select! {
        () = shutdown => {}
        () = main => {}
    }
    parts.shutdown().await;
    deps.driver.release().await;
    Ok(())
}

/// Why the agent could not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {}
