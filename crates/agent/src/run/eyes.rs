//! Who looks at the driver and the host, and tells the main loop.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pitcrew_core::Inventory;
use pitcrew_core::ports::{GpuError, GpuEvent};
use pitcrew_host::Host;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::glance::{Glance, glance};
use crate::Deps;
use crate::settings::Pace;

/// How long an event waits for others before the GPUs are looked at.
const TOGETHER: Duration = Duration::from_millis(200);
/// How long the driver may take to give back what it holds.
pub(super) const RELEASE: Duration = Duration::from_secs(4);
/// When it is tried again where a call of it hangs.
const AGAIN: Duration = Duration::from_secs(5);

/// Something that was seen.
#[derive(Debug)]
pub(super) enum Seen {
    /// The GPUs, or why they can't be read.
    Gpus(Result<Arc<Inventory>, GpuError>),
    /// Something happened on a GPU.
    Event(GpuEvent),
    /// The driver was let go of, or could not be in time.
    Released {
        /// Who wants it.
        why: String,
        /// What keeps it, where something does.
        held: Option<String>,
    },
    /// All facts of the host.
    Host(Arc<Host>),
}

/// What the main loop wants of the eyes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// Why the driver must be let go of.
    pub(super) release: Option<String>,
    /// Something is not well: look again soon.
    pub(super) closely: bool,
    /// Files whose change tells of something.
    pub(super) files: Vec<PathBuf>,
}

/// Called to look before the time has come.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// At the GPUs.
    pub(super) gpus: Notify,
    /// At the host.
    pub(super) host: Notify,
}

/// Looks at the GPUs and hears of events, for ever.
pub(super) async fn gpus(
    deps: Arc<Deps>,
    mut wish: watch::Receiver<Wish>,
    calls: Arc<Calls>,
    seen: mpsc::Sender<Seen>,
) {
    let pace = deps.settings.pace;
    loop {
        let release = wish.borrow_and_update().release.clone();
        if let Some(why) = release {
            // A look that goes on was dropped with its future; what it holds is the driver's to give back.
            let held = match timeout(RELEASE, deps.driver.release()).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!(
                    "the NVIDIA driver was not let go of within {} s",
                    RELEASE.as_secs()
                )),
            };
            let is_free = held.is_none();
            if seen.send(Seen::Released { why, held }).await.is_err() {
                return;
            }
            tokio::select! {
                ended = wish.wait_for(|wish| wish.release.is_none()) => if ended.is_err() { return },
                // A call that hung may have returned.
                () = tokio::time::sleep(AGAIN), if !is_free => {}
            }
            continue;
        }
        let looked = tokio::select! {
            biased;
            changed = wish.wait_for(|wish| wish.release.is_some()) => {
                if changed.is_err() { return }
                continue;
            }
            () = hear(&deps, &seen) => return,
            looked = deps.driver.look() => looked,
        };
        if seen.send(Seen::Gpus(looked.map(Arc::new))).await.is_err() {
            return;
        }
        // What was seen decides how soon to look again, so the wish is read while waiting.
        let since = Instant::now();
        let mut asked: Option<Instant> = None;
        loop {
            let usual = since + period(&wish.borrow_and_update(), pace);
            tokio::select! {
                biased;
                changed = wish.changed() => {
                    if changed.is_err() { return }
                    if wish.borrow().release.is_some() { break }
                }
                event = deps.driver.event() => {
                    if seen.send(Seen::Event(event)).await.is_err() { return }
                    asked.get_or_insert_with(|| Instant::now() + TOGETHER);
                }
                () = calls.gpus.notified(), if asked.is_none() => asked = Some(Instant::now() + TOGETHER),
                () = sleep_until(asked.map_or(usual, |asked| asked.min(usual))) => break,
            }
        }
    }
}

/// Passes events on while something else goes on.
async fn hear(deps: &Deps, seen: &mpsc::Sender<Seen>) {
    loop {
        let event = deps.driver.event().await;
        if seen.send(Seen::Event(event)).await.is_err() {
            return;
        }
    }
}

fn period(wish: &Wish, pace: Pace) -> Duration {
    if wish.closely {
        pace.look_closely
    } else {
        pace.look
    }
}

/// Glances at the host's files, and gathers all facts where something has changed, for ever.
pub(super) async fn host(
    deps: Arc<Deps>,
    wish: watch::Receiver<Wish>,
    calls: Arc<Calls>,
    seen: mpsc::Sender<Seen>,
) {
    let pace = deps.settings.pace;
    let mut last = Glance::default();
    let mut gather_at = Instant::now();
    loop {
        let now = glance(&*deps.host, &wish.borrow().files);
        let is_first = last == Glance::default();
        if now.driver != last.driver && !is_first {
            calls.gpus.notify_one();
        }
        if now != last || Instant::now() >= gather_at {
            last = now;
            gather_at = Instant::now() + pace.gather;
            let fs = Arc::clone(&deps.host);
            // Hundreds of files, some of them logs: not on the thread that answers the kubelet.
            let Ok(host) = tokio::task::spawn_blocking(move || Host::gather(&*fs)).await else {
                // It panicked; the next one may not.
                tokio::time::sleep(pace.look_closely).await;
                continue;
            };
            if seen.send(Seen::Host(Arc::new(host))).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = calls.host.notified() => gather_at = Instant::now(),
            () = tokio::time::sleep(pace.glance) => {}
        }
    }
}
