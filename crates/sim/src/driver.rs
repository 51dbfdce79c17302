//! The imaginary driver, asked as the agent asks the real one.

use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use pitcrew_core::Inventory;
use pitcrew_core::ports::{GpuError, GpuEvent, InventorySource as _};
use pitcrew_scenario::{EventQueue, Machine};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// How long the imaginary driver may take to answer.
pub const DEADLINE: Duration = Duration::from_secs(2);

/// The driver of a machine.
///
/// A call that hangs keeps one blocking thread of the runtime, never more: later callers wait for the same one.
pub struct Driver {
    machine: Machine,
    deadline: Duration,
    /// The look that goes on.
    look: tokio::sync::Mutex<Option<JoinHandle<Result<Inventory, GpuError>>>>,
    /// What is heard of events; `None` while the driver is let go of.
    events: Arc<Mutex<Option<EventQueue>>>,
    opened: Notify,
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("deadline", &self.deadline)
            .field("is_open", &self.is_open())
            .finish_non_exhaustive()
    }
}

impl Driver {
    /// The driver of this machine, with a deadline for each look.
    pub fn new(machine: Machine, deadline: Duration) -> Self {
        Self {
            machine,
            deadline,
            look: tokio::sync::Mutex::new(None),
            events: Arc::default(),
            opened: Notify::new(),
        }
    }

    /// True while whoever uses it holds descriptors of the driver, which then can't be replaced.
    pub fn is_open(&self) -> bool {
        self.queue().is_some()
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Option<EventQueue>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self) -> Result<Inventory, GpuError> {
        let mut look = self.look.lock().await;
        if let Some(old) = look.as_mut() {
            // It was given up; what it gives at last is of long ago.
            let _ = old.await;
            *look = None;
        }
        let mut machine = self.machine.clone();
        let current = look.insert(tokio::task::spawn_blocking(move || machine.inventory()));
        let answer = current.await;
        *look = None;
        answer.unwrap_or_else(|error| {
            Err(GpuError::DriverFailed(format!(
                "the thread that asked it has failed: {error}"
            )))
        })
    }

    /// Listens from now on, unless it does already.
    fn listen(&self) {
        let mut queue = self.queue();
        if queue.is_none() {
            *queue = Some(self.machine.events());
            drop(queue);
            self.opened.notify_waiters();
        }
    }
}

impl pitcrew_agent::deps::Driver for Driver {
    fn look(&self) -> BoxFuture<'_, Result<Inventory, GpuError>> {
        async {
            let Ok(answer) = tokio::time::timeout(self.deadline, self.ask()).await else {
                if let Some(inventory) = self.machine.inventory_beside_hangs() {
                    return Ok(inventory);
                }
                let text = format!("no answer within {} s", self.deadline.as_secs_f32());
                return Err(GpuError::DriverSilent(text));
            };
            match &answer {
                Ok(_) => self.listen(),
                // A library that is gone has no descriptors.
                Err(_) => *self.queue() = None,
            }
            answer
        }
        .boxed()
    }

    fn event(&self) -> BoxFuture<'_, GpuEvent> {
        async {
            loop {
                let opened = self.opened.notified();
                tokio::pin!(opened);
                // Before the queue is looked at, or a listener that comes in between is missed.
                opened.as_mut().enable();
                let next = poll_fn(|context| match self.queue().as_mut() {
                    Some(queue) => queue.poll(context).map(Some),
                    None => Poll::Ready(None),
                });
                tokio::select! {
                    next = next => match next {
                        Some(event) => return event,
                        None => opened.await,
                    },
                    () = &mut opened => {}
                }
            }
        }
        .boxed()
    }

    fn release(&self) -> BoxFuture<'_, Result<(), GpuError>> {
        *self.queue() = None;
        // Who waits on the old queue waits for the next one.
        self.opened.notify_waiters();
        std::future::ready(Ok(())).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pitcrew_agent::deps::Driver as _;
    use pitcrew_core::ports::GpuEventKind;
    use pitcrew_scenario::{Change, Scenario};

    fn driver() -> (Machine, Driver) {
        let machine = Machine::new(Scenario::builtin("rtx3060").unwrap());
        let driver = Driver::new(machine.clone(), Duration::from_millis(50));
        (machine, driver)
    }

    fn hang(call: &str) -> Change {
        Change::Hang {
            call: call.to_owned(),
            gpu: None,
        }
    }

    #[tokio::test]
    async fn a_driver_that_hangs_keeps_one_thread_and_answers_again_when_it_returns() {
        let (machine, driver) = driver();
        assert_eq!(driver.look().await.unwrap().gpus.len(), 1);
        machine.change(&hang("nvmlDevice*")).unwrap();
        let mut threads = std::collections::BTreeSet::new();
        for _ in 0..3 {
            let error = driver.look().await.unwrap_err();
            assert!(matches!(error, GpuError::DriverSilent(_)), "{error}");
            threads.insert(driver.look.lock().await.as_ref().unwrap().id().to_string());
        }
        assert_eq!(threads.len(), 1, "one look hangs: {threads:?}");
        machine.change(&Change::Release).unwrap();
        assert!(driver.look().await.is_ok());
    }

    #[tokio::test]
    async fn events_come_from_the_first_look_on_and_wait_while_there_is_no_driver() {
        let (machine, driver) = driver();
        let driver = Arc::new(driver);
        let xid = |xid| Change::Xid {
            gpu: 0,
            xid,
            gpu_instance: None,
        };
        machine.change(&xid(13)).unwrap();
        let waiting = tokio::spawn({
            let driver = Arc::clone(&driver);
            async move { driver.event().await }
        });
        tokio::task::yield_now().await;
        driver.look().await.unwrap();
        machine.change(&xid(48)).unwrap();
        let event = waiting.await.unwrap();
        assert_eq!(
            event.kind,
            GpuEventKind::Xid(48),
            "nobody listened to the first one"
        );
        driver.release().await.unwrap();
        assert!(!driver.is_open());
        machine.change(&xid(79)).unwrap();
        assert!(driver.event().now_or_never().is_none());
        driver.look().await.unwrap();
        machine.change(&xid(62)).unwrap();
        assert_eq!(driver.event().await.kind, GpuEventKind::Xid(62));
    }
}
