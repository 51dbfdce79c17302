//! The compute mode of GPUs that are shared through MPS.
//!
//! MPS itself works in the modes `DEFAULT` and `EXCLUSIVE_PROCESS`: clients find their daemon by its pipe. The mode decides
//! about everybody else. In `EXCLUSIVE_PROCESS` the server is the one process that the driver lets in; in `DEFAULT` a
//! program that knows no pipe gets the GPU as if there were no MPS, shares its time with the server, and keeps no limit.

use std::io;
use std::path::Path;

use super::daemon::Ground;
use super::dialogue::Mode;
use super::{Daemon, Policy, problems};
use crate::notice::Level;
use crate::snapshot::Problem;

const SMI: &str = "nvidia-smi";

/// A GPU that isn't exclusive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) uuid: String,
    /// `None` where it can't be told.
    pub(super) mode: Option<Mode>,
    /// Why it stays so; `None` where that was asked for.
    pub(super) why: Option<String>,
}

impl Ground {
    /// Brings the daemon's GPUs into the mode that was asked for. What is to know where other processes may use them, too.
    ///
    /// # Errors
    /// Where the mode lets nobody in, or exclusive use was insisted on and can't be had.
    pub(super) async fn settle_modes(&self, daemon: &Daemon) -> Result<Option<Problem>, Problem> {
        let policy = self.policy;
        if policy == Policy::Leave {
            // Left alone from now on: what an agent before us set, it had not been told to leave.
            self.give_back_modes(|uuid| daemon.gpus.iter().any(|part| part.uuid == uuid))
                .await;
        }
        let mut all = Vec::new();
        for part in &daemon.gpus {
            let Some(open) = self.settle(&part.uuid).await? else {
                continue;
            };
            if open.mode == Some(Mode::Prohibited) {
                return Err(problems::prohibited(&open));
            }
            if policy == Policy::Exclusive {
                return Err(problems::compute_mode(&open));
            }
            all.push(open);
        }
        Ok((!all.is_empty()).then(|| problems::not_exclusive(&all)))
    }

    /// Brings one GPU into its mode; what is to know where it isn't exclusive then.
    async fn settle(&self, uuid: &str) -> Result<Option<Open>, Problem> {
        let open = |mode, why: String| {
            Ok(Some(Open {
                uuid: uuid.to_owned(),
                mode,
                why: Some(why),
            }))
        };
        let smi = match self.program(SMI) {
            Ok(smi) => smi,
            Err(problem) if self.policy == Policy::Exclusive => return Err(problem),
            Err(problem) => return open(None, problem.message),
        };
        let mode = match self.mode(&smi, uuid).await {
            Ok(Mode::ExclusiveProcess) => return Ok(None),
            Ok(mode) => mode,
            Err(error) => return open(None, error.to_string()),
        };
        if self.policy == Policy::Leave {
            return Ok(Some(Open {
                uuid: uuid.to_owned(),
                mode: Some(mode),
                why: None,
            }));
        }
        // Written down first: a mode that nobody knows of would stay.
        if let Err(error) = self.disk.keep_mode(uuid, mode) {
            return open(Some(mode), error.to_string());
        }
        let set = self.set_mode(&smi, uuid, Mode::ExclusiveProcess).await;
        // It is said to be done also where it can't be ("treating as warning and moving on").
        let now = self.mode(&smi, uuid).await;
        if let Ok(Mode::ExclusiveProcess) = now {
            return Ok(None);
        }
        self.disk.forget_mode(uuid);
        let why = match (set, now) {
            (Err(error), _) | (Ok(()), Err(error)) => error.to_string(),
            (Ok(()), Ok(mode)) => format!(
                "`nvidia-smi` has set it, and it is in `{}` all the same",
                mode.word()
            ),
        };
        open(Some(mode), why)
    }

    /// Gives back the modes of those GPUs that `which` says, and that an agent changed.
    pub(super) async fn give_back_modes(&self, which: impl Fn(&str) -> bool) {
        let modes = self.disk.modes().into_iter().filter(|(uuid, _)| which(uuid));
        for (uuid, mode) in modes.collect::<Vec<_>>() {
            let given = match self.program(SMI) {
                Ok(smi) => self
                    .set_mode(&smi, &uuid, mode)
                    .await
                    .map_err(|error| error.to_string()),
                Err(problem) => Err(problem.message),
            };
            match given {
                Ok(()) => self.disk.forget_mode(&uuid),
                Err(error) => self.tell(
                    Level::Warning,
                    format!(
                        "{uuid} stays in a compute mode that lets one process in: {error}; `nvidia-smi -i {uuid} -c {}`",
                        mode.word()
                    ),
                ),
            }
        }
    }

    async fn mode(&self, smi: &Path, uuid: &str) -> io::Result<Mode> {
        let question = ["-i", uuid, "--query-gpu=compute_mode", "--format=csv,noheader"];
        let answer = self.smi(smi, &question).await?;
        Mode::read(&answer)
            .ok_or_else(|| io::Error::other(format!("`nvidia-smi` says that it is in `{}`", answer.trim())))
    }

    async fn set_mode(&self, smi: &Path, uuid: &str, mode: Mode) -> io::Result<()> {
        self.smi(smi, &["-i", uuid, "-c", mode.word()]).await.map(|_| ())
    }

    async fn smi(&self, smi: &Path, arguments: &[&str]) -> io::Result<String> {
        let arguments: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
        // Without a deadline of our own: it waits for a driver that is busy, and the system's deadline is for that.
        self.system.run(smi, &arguments, &self.paths(), "").await
    }
}
