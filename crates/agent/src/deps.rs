//! The outside of the agent, as its caller gives it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use pitcrew_core::Inventory;
use pitcrew_core::ports::{Clock, GpuError, GpuEvent, HostFs};
use pitcrew_core::proof::Profile;
use tokio::sync::mpsc::UnboundedSender;

use crate::notice::Notice;
use crate::settings::Settings;

/// Everything that the agent needs from outside.
pub struct Deps {
    /// What was asked for: flags, environment, files.
    pub settings: Settings,
    /// The GPUs.
    pub driver: Arc<dyn Driver>,
    /// The host's files, to read.
    pub host: Arc<dyn HostFs + Send + Sync>,
    /// The host's root, to write under: `/`, or where it is mounted.
    pub root: PathBuf,
    /// What only the kernel or systemd can do.
    pub system: Arc<dyn System>,
    /// Who proves GPUs.
    pub prover: Arc<dyn Prover>,
    /// The API server; `None` for a node on its own, which then has no labels and no status.
    pub client: Option<kube::Client>,
    /// For timestamps that are written down.
    pub clock: Arc<dyn Clock + Send + Sync>,
    /// Who is told what happens.
    pub notices: UnboundedSender<Notice>,
}

impl fmt::Debug for Deps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deps")
            .field("settings", &self.settings)
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

/// The driver, asked with deadlines. Implementations never block the caller's thread.
pub trait Driver: Send + Sync {
    /// Reads everything once. Loads the driver where it isn't loaded, or was replaced. An error within the
    /// implementation's own deadline where it doesn't answer.
    fn look(&self) -> BoxFuture<'_, Result<Inventory, GpuError>>;

    /// The next event. Waits for ever where none comes, also while there is no driver.
    fn event(&self) -> BoxFuture<'_, GpuEvent>;

    /// Gives back every descriptor and mapping, so that the driver can be replaced. The next [`Self::look`] loads it
    /// again. An error where something of it can't be given back now, as a call of it has not returned.
    fn release(&self) -> BoxFuture<'_, Result<(), GpuError>>;
}

/// What only the kernel or systemd can do for the node.
pub trait System: Send + Sync {
    /// Loads a kernel module, as `modprobe` does.
    fn load_module(&self, name: &str) -> BoxFuture<'_, io::Result<()>>;

    /// Makes a character device node at a path of the host, readable and writable for all.
    fn make_char_device(&self, path: &Path, major: u32, minor: u32) -> io::Result<()>;

    /// Restarts a unit of systemd and waits until it is active.
    fn restart_unit<'a>(&'a self, unit: &'a str) -> BoxFuture<'a, io::Result<()>>;

    /// Starts a program of the host (paths as on the host) that runs on when the agent ends. By its name [`Self::find`]
    /// finds it again; one name is one program at a time.
    fn start<'a>(
        &'a self,
        name: &'a str,
        program: &'a Path,
        arguments: &'a [String],
        env: &'a [(String, String)],
    ) -> BoxFuture<'a, io::Result<Box<dyn Process>>>;

    /// The program that an agent started under this name, and that still runs: this one, or one before it.
    fn find<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Option<Box<dyn Process>>>>;

    /// Runs a program of the host to its end, `input` on its standard input, and gives its standard output.
    fn run<'a>(
        &'a self,
        program: &'a Path,
        arguments: &'a [String],
        env: &'a [(String, String)],
        input: &'a str,
    ) -> BoxFuture<'a, io::Result<String>>;
}

/// Who proves GPUs: a process of its own, as CUDA is nothing for the agent's.
pub trait Prover: Send + Sync {
    /// Starts a proof. Its report is handed over as any other ([`crate::proof::hand_over`]).
    fn start<'a>(&'a self, order: &'a ProofOrder) -> BoxFuture<'a, io::Result<Box<dyn Proving>>>;

    /// Proofs that an agent before this one has left behind.
    fn left(&self) -> BoxFuture<'_, io::Result<Vec<Box<dyn Proving>>>>;

    /// How long a proof may take from its start until its process is gone. A longer one hangs.
    fn longest(&self, profile: Profile) -> Duration;
}

/// What is to be proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofOrder {
    /// UUIDs of GPUs, or that of one MIG device: CUDA shows a process no more than one.
    pub devices: Vec<String>,
    /// How much is tested.
    pub profile: Profile,
    /// Name of the node.
    pub node: String,
}

/// For an agent that proves nothing itself; reports that are handed over count all the same.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProver;

impl Prover for NoProver {
    fn start<'a>(&'a self, _: &'a ProofOrder) -> BoxFuture<'a, io::Result<Box<dyn Proving>>> {
        Box::pin(std::future::ready(Err(io::ErrorKind::Unsupported.into())))
    }

    fn left(&self) -> BoxFuture<'_, io::Result<Vec<Box<dyn Proving>>>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn longest(&self, _: Profile) -> Duration {
        Duration::ZERO
    }
}

/// A proof that runs.
pub trait Proving: Send {
    /// UUIDs of what it proves; none where that can't be told any more.
    fn devices(&self) -> Vec<String>;

    /// Waits for its end; how it ended, in words.
    fn wait(&mut self) -> BoxFuture<'_, String>;

    /// Asks it to end, and kills it where it doesn't. False where it is there all the same, as in a call that hangs.
    fn end(&mut self) -> BoxFuture<'_, bool>;
}

/// A program that was started. Dropping this leaves it alone.
pub trait Process: Send {
    /// Waits for its end; how it ended, in words.
    fn wait(&mut self) -> BoxFuture<'_, String>;

    /// Ends it at once, with all that it started. It may have ended already.
    fn end(&mut self) -> BoxFuture<'_, ()>;

    /// Why it will not outlive the agent, which it should; `None` where it will.
    fn mortal(&self) -> Option<String> {
        None
    }
}
