//! The driver for the agent: asked on a thread of its own, with a deadline.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use pitcrew_agent::deps::Driver;
use pitcrew_cli::GlobalArgs;
use pitcrew_core::Inventory;
use pitcrew_core::ports::{GpuError, GpuEvent};
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::driver::listener::Told;
use crate::driver::{self, Opened};
use crate::error::Error;

/// This machine's driver, or a scenario's.
#[derive(Debug)]
pub(super) struct AgentDriver {
    opened: Arc<Opened>,
    events: Mutex<UnboundedReceiver<GpuEvent>>,
}

#[derive(Debug)]
struct Queue(UnboundedSender<GpuEvent>);

impl Told for Queue {
    fn tell(&self, event: GpuEvent) {
        // Nobody listens any more where the agent ends.
        let _ = self.0.send(event);
    }
}

impl AgentDriver {
    pub(super) fn open(global: &GlobalArgs, scenario: Option<&str>) -> Result<Self, Error> {
        let opened = driver::open(global, scenario)?;
        let (queue, events) = unbounded_channel();
        opened.tell(Arc::new(Queue(queue)));
        Ok(Self {
            opened: Arc::new(opened),
            events: Mutex::new(events),
        })
    }
}

/// Waits for a thread that may wait itself.
async fn on_a_thread<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, GpuError> + Send + 'static,
) -> Result<T, GpuError> {
    tokio::task::spawn_blocking(act).await.unwrap_or_else(|error| {
        let text = format!("the thread that asked it has ended: {error}");
        Err(GpuError::DriverFailed(text))
    })
}

impl Driver for AgentDriver {
    fn look(&self) -> BoxFuture<'_, Result<Inventory, GpuError>> {
        let opened = Arc::clone(&self.opened);
        let look = move || match opened.look() {
            Ok(seen) => Ok(seen.inventory),
            Err(Error::Gpus(error)) => Err(error),
            Err(error) => Err(GpuError::DriverFailed(error.to_string())),
        };
        on_a_thread(look).boxed()
    }

    fn event(&self) -> BoxFuture<'_, GpuEvent> {
        async {
            match self.events.lock().await.recv().await {
                Some(event) => event,
                // The thread that would tell of one has ended: every look says so.
                None => std::future::pending().await,
            }
        }
        .boxed()
    }

    fn release(&self) -> BoxFuture<'_, Result<(), GpuError>> {
        let opened = Arc::clone(&self.opened);
        on_a_thread(move || opened.release()).boxed()
    }
}
