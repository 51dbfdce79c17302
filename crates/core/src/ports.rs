//! The outside world as traits, in our words. Implementations hold no decisions.
//!
//! Each is passed in by whoever starts a program, never chosen by `cfg!(test)`: `scenario` implements them for
//! imaginary GPUs, `nvml` and `host` for real ones. All are synchronous; who needs a deadline calls from a thread
//! that can be abandoned.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::gpu::{GpuInstance, MigDevice};
use crate::inventory::Inventory;
use crate::mig::{GeometryProfile, Placement, Profile};
use crate::nvlink::NvLink;
use crate::reading::Reading;

/// Asking a GPU or its driver failed as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// The driver's library isn't there.
    #[error("no NVIDIA driver library was found: {0}")]
    NoDriver(String),
    /// The driver is there and refuses to work.
    #[error("the NVIDIA driver does not answer: {0}")]
    DriverFailed(String),
    /// A call has not returned, and nothing can be asked until it does: which, for how long.
    #[error("the NVIDIA driver does not answer: {0}")]
    DriverSilent(String),
    /// No GPU has this UUID (any more).
    #[error("no GPU has the UUID `{0}`")]
    NoSuchGpu(String),
    /// The GPU doesn't answer any more: it has fallen off the bus.
    #[error("GPU `{0}` is lost: it no longer answers on the PCI bus")]
    GpuLost(String),
    /// A call about the GPU has not returned, and may never do; the others may be well.
    #[error("GPU `{gpu}` does not answer: {reason}")]
    Silent {
        /// UUID of the GPU.
        gpu: String,
        /// Which call, for how long.
        reason: String,
    },
    /// This GPU or driver can't do it.
    #[error("GPU `{gpu}` does not support {what}")]
    NotSupported {
        /// UUID of the GPU.
        gpu: String,
        /// What was asked for.
        what: String,
    },
    /// The GPU is held by somebody.
    #[error("GPU `{gpu}` is in use: {holder}")]
    InUse {
        /// UUID of the GPU.
        gpu: String,
        /// Who holds it.
        holder: String,
    },
    /// A request that can't be fulfilled, with the reason.
    #[error("GPU `{gpu}` refused: {reason}")]
    Refused {
        /// UUID of the GPU.
        gpu: String,
        /// Why.
        reason: String,
    },
}

/// Gives snapshots of all GPUs.
pub trait InventorySource {
    /// Reads everything once. A GPU that can't be read is in the snapshot with failed readings; an error means that
    /// nothing could be read at all.
    fn inventory(&mut self) -> Result<Inventory, GpuError>;
}

/// Cheap, frequent readings of one GPU: what metrics and a burn-in need.
pub trait Sampling {
    /// Reads field values by NVML's name for them (`NVML_FI_DEV_*`), in the order asked.
    fn fields(&mut self, uuid: &str, names: &[&str]) -> Result<Vec<Reading<u64>>, GpuError>;

    /// The `NVLinks` of a GPU one by one, up or down; fails with [`GpuError::NotSupported`] for one without.
    fn nvlinks(&mut self, uuid: &str) -> Result<Vec<NvLink>, GpuError>;

    /// Profiling figures (GPM, Hopper and later) between the last call and this one, by NVML's metric number.
    fn profiling(&mut self, uuid: &str, metrics: &[u32]) -> Result<Vec<Reading<f64>>, GpuError>;
}

/// Something that happened on a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuEvent {
    /// UUID of the GPU.
    pub uuid: String,
    /// What happened.
    pub kind: GpuEventKind,
    /// GPU instance that it happened in, if the driver tells.
    pub gpu_instance: Option<u32>,
    /// Compute instance that it happened in, if the driver tells.
    pub compute_instance: Option<u32>,
}

/// Kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GpuEventKind {
    /// The driver reported an XID; see [`crate::xid`].
    Xid(u32),
    /// A memory error that ECC corrected.
    EccCorrected,
    /// A memory error that ECC could not correct.
    EccUncorrected,
}

/// Waits for events.
pub trait Events {
    /// The next event, or `None` when `timeout` has passed.
    fn wait(&mut self, timeout: Duration) -> Result<Option<GpuEvent>, GpuError>;
}

/// Cuts GPUs into MIG devices: a GPU instance has memory and engines of its own, and each compute instance in it some of
/// its compute slices. A device is a compute instance.
pub trait Mig {
    /// Turns MIG on or off. On cards that need a reset for it the mode is only pending afterwards.
    fn set_mode(&mut self, uuid: &str, enabled: bool) -> Result<(), GpuError>;

    /// Profiles of this GPU, with their placements, as the driver gives them.
    fn profiles(&mut self, uuid: &str) -> Result<Vec<GeometryProfile>, GpuError>;

    /// GPU instances on this GPU, by number, also those without a compute instance, which no [`Inventory`] shows as
    /// a device. None while MIG is off.
    fn gpu_instances(&mut self, uuid: &str) -> Result<Vec<GpuInstance>, GpuError>;

    /// Creates a GPU instance with nothing in it: CUDA sees no device before there is a compute instance.
    ///
    /// The profile is one of [`Mig::profiles`]. With no placement the driver chooses the first that is free. The
    /// driver also gives the number; what else is on the GPU keeps its own. Refused while MIG is off, where the card
    /// has no such profile, and where no place or not the one asked for is free.
    fn create_gpu_instance(
        &mut self,
        uuid: &str,
        profile: &Profile,
        placement: Option<Placement>,
    ) -> Result<GpuInstance, GpuError>;

    /// Creates a compute instance in a GPU instance, and returns the device that it makes, with a UUID that no device
    /// had before.
    ///
    /// The profile names the compute slices and the GPU instance that they are of: `1c.3g.40gb`, or `3g.40gb` for all
    /// of them. Compute instances in one GPU instance share its memory and engines. The driver chooses the slices,
    /// the first that are free. Refused where there is no such GPU instance, where it is of another profile or can't
    /// be cut so (see [`Profile::parts`]), and where too few slices are free.
    fn create_compute_instance(
        &mut self,
        uuid: &str,
        gpu_instance: u32,
        profile: &Profile,
    ) -> Result<MigDevice, GpuError>;

    /// Destroys a compute instance; its GPU instance stays, and keeps its memory slices.
    ///
    /// Refused where there is no such instance; [`GpuError::InUse`] while a process runs in it. What runs in other
    /// compute instances goes on.
    fn destroy_compute_instance(
        &mut self,
        uuid: &str,
        gpu_instance: u32,
        compute_instance: u32,
    ) -> Result<(), GpuError>;

    /// Creates a GPU instance and in it one compute instance, and returns the device: both or neither.
    ///
    /// The compute instance has all slices, or as many as the profile says (`1c.3g.40gb`). With no placement the
    /// driver chooses the first that is free.
    fn create(
        &mut self,
        uuid: &str,
        profile: &Profile,
        placement: Option<Placement>,
    ) -> Result<MigDevice, GpuError> {
        let instance = self.create_gpu_instance(uuid, &profile.gpu_instance(), placement)?;
        let created = self.create_compute_instance(uuid, instance.id, profile);
        if created.is_err() {
            // Half a device would take its place for ever; the first error is the one to tell.
            let _: Result<(), GpuError> = self.destroy(uuid, instance.id);
        }
        created
    }

    /// Destroys a GPU instance and the compute instances in it.
    ///
    /// The driver itself refuses a GPU instance in which compute instances are left, so they go first, one after the
    /// other. [`GpuError::InUse`], with all of them left as they are, while a process runs in one of them; a process
    /// that starts in the middle of it can leave some destroyed.
    fn destroy(&mut self, uuid: &str, gpu_instance: u32) -> Result<(), GpuError>;
}

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file of this many bytes.
    File(u64),
    /// A directory.
    Directory,
    /// A symbolic link, and where it points.
    Link(PathBuf),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A socket, pipe or block device.
    Other,
}

/// Owner and permissions of what is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ownership {
    /// Permission bits, e.g. `0o666`, without those of the kind.
    pub mode: u32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Reads the host's files. Paths are absolute and as on the host; the implementation puts its root before them.
pub trait HostFs {
    /// What is at `path`, without following a link there.
    fn kind(&self, path: &Path) -> io::Result<FileKind>;

    /// The whole file, links followed inside the root.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Names in the directory, sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Owner and permissions of what is at `path`, without following a link there.
    ///
    /// # Errors
    /// Where nothing is there, and of the kind `Unsupported` where the implementation knows nothing of owners.
    fn ownership(&self, path: &Path) -> io::Result<Ownership> {
        let _ = path;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// At most `most` bytes from `offset` on, fewer only at the end: for files too large to be read whole, such as
    /// logs and programs.
    fn read_part(&self, path: &Path, offset: u64, most: usize) -> io::Result<Vec<u8>> {
        let whole = self.read(path)?;
        let start = usize::try_from(offset).map_or(whole.len(), |start| start.min(whole.len()));
        let end = start.saturating_add(most).min(whole.len());
        Ok(whole[start..end].to_vec())
    }
}

/// Wall-clock time, for timestamps that are written down. Waiting is the runtime's.
pub trait Clock {
    /// Now.
    fn now(&self) -> SystemTime;
}
