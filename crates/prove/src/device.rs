//! A device that can work: what it is, its memory, and each kind of work that it does.
//!
//! [`Device`] is implemented by a GPU through `libcuda.so.1` and by a stand-in on the CPU. It holds no decisions: what is
//! done, for how long, and what is made of the results is said by whoever uses it.

mod memory;
mod output;
mod record;
mod variant;
mod work;

use std::time::Duration;

use pitcrew_core::catalog::ComputeCapability;
use pitcrew_core::inventory::CudaVersion;
use pitcrew_core::pci::PciAddress;
pub use pitcrew_core::proof::Format;

pub use memory::{Block, HostBlock, Pattern, Span};
pub use output::Output;
pub use record::{
    GEMM_RECORD_BYTES, LOOP_RECORD_BYTES, LOOP_WARPS, MARCH_LOG_BYTES, MARCH_LOG_ENTRIES,
    RECOMPUTE_LOG_BYTES, RECOMPUTE_LOG_ENTRIES,
};
pub use variant::{Choice, Choices, CodeSource, LoopShape, Placement, Refused, Variant};
pub use work::{Fault, Gemm, Work};

/// A peer, as [`Device::reach`] numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerId(pub u32);

/// What a device is.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceFacts {
    /// Product name.
    pub name: String,
    /// `GPU-...`, or `MIG-...` for a slice, as NVML writes it.
    pub uuid: String,
    /// Where the GPU is on the PCI bus.
    pub pci: Option<PciAddress>,
    /// Compute capability.
    pub compute_capability: ComputeCapability,
    /// SMs that work can run on: of a MIG slice its own.
    pub sms: u32,
    /// Device memory in bytes.
    pub memory_bytes: u64,
    /// L2 cache in bytes.
    pub l2_bytes: u64,
    /// Highest SM clock in MHz.
    pub sm_clock_mhz: u32,
    /// CUDA version of the driver.
    pub cuda: CudaVersion,
}

/// Something went wrong with a device as a whole. Wrong results are no error: they are what is looked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// Not enough memory.
    #[error("out of memory: {wanted} bytes of {of} were not to be had; another process holds them")]
    OutOfMemory {
        /// Bytes asked for.
        wanted: u64,
        /// Whose memory: `the GPU` or `the host`.
        of: &'static str,
    },
    /// It doesn't answer any more.
    #[error("the GPU is lost: {0}")]
    Lost(String),
    /// Work did not end.
    #[error("the GPU hangs: `{work}` did not end within {seconds} s")]
    Hang {
        /// Which work.
        work: &'static str,
        /// How long it was waited for.
        seconds: u64,
    },
    /// A kernel was stopped by the hardware or the driver: illegal access, ECC error and the like.
    #[error("the GPU stopped `{work}`: {reason}")]
    Stopped {
        /// Which work.
        work: &'static str,
        /// The driver's words.
        reason: String,
    },
    /// Kernels that had run on no GPU before stopped its context, and nothing more can be asked of it.
    #[error(
        "the kernels of `{0}` had run on no GPU before, and stopped this one's context in their self-test"
    )]
    Untested(Variant),
    /// This device can't do that.
    #[error("{0}")]
    Unsupported(String),
}

/// How much smaller than the GPU that it stands for a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// Each byte stands for that many.
    pub bytes: u64,
    /// Each operation stands for that many.
    pub operations: u64,
    /// Edge of the matrices of a GEMM.
    pub edge: u32,
    /// K of a GEMM.
    pub k: u32,
    /// Rounds of a loop in one launch.
    pub rounds: u32,
}

impl Scale {
    /// Of a real GPU.
    pub const REAL: Self = Self {
        bytes: 1,
        operations: 1,
        edge: 8192,
        k: 8192,
        rounds: 1024,
    };
}

/// A device that can work. One thread uses it at a time; several devices work side by side.
pub trait Device {
    /// What it is.
    fn facts(&self) -> &DeviceFacts;

    /// Free and all device memory in bytes, as the driver says now.
    fn free_memory(&self) -> Result<u64, DeviceError>;

    /// Device memory, aligned to 1 KiB at least, of unknown content.
    fn allocate(&self, bytes: u64) -> Result<Block, DeviceError>;

    /// Gives a block back.
    fn release(&self, block: Block) -> Result<(), DeviceError>;

    /// Pinned host memory.
    fn allocate_host(&self, bytes: u64) -> Result<HostBlock, DeviceError>;

    /// Gives it back.
    fn release_host(&self, block: HostBlock) -> Result<(), DeviceError>;

    /// Writes to pinned host memory; no device is involved.
    fn write_host(&self, block: HostBlock, offset: u64, data: &[u8]) -> Result<(), DeviceError>;

    /// Reads from pinned host memory.
    fn read_host(&self, block: HostBlock, offset: u64, data: &mut [u8]) -> Result<(), DeviceError>;

    /// Copies to the start of a span, after all work before it.
    fn write(&self, to: Span, data: &[u8]) -> Result<(), DeviceError>;

    /// Copies from the start of a span, after all work before it.
    fn read(&self, from: Span, data: &mut [u8]) -> Result<(), DeviceError>;

    /// Which of these variants, best first, can run for a format, each after a self-test of a few tiles, and why those
    /// before it can't. What comes after one that can need not be tried: it is asked for again where that one fails.
    fn choices(&self, format: Format, among: &[Variant]) -> Choices;

    /// CTAs of a loop that fit on one SM at once, for [`Work::MmaLoop`].
    fn loop_ctas_per_sm(&self, variant: Variant, format: Format) -> u32;

    /// Does all work in order and tells how long each took on the device.
    fn run(&self, work: &[Work]) -> Result<Vec<Duration>, DeviceError>;

    /// Does two lists at the same time, each in its order; both begin together. Times of both.
    fn run_beside(&self, first: &[Work], second: &[Work]) -> Result<[Vec<Duration>; 2], DeviceError>;

    /// How much smaller than a real GPU this is.
    fn scale(&self) -> Scale {
        Scale::REAL
    }

    /// Opens the way to another device's memory, and numbers it. `Unsupported` with the reason where there is none.
    fn reach(&self, peer: &DeviceFacts) -> Result<PeerId, DeviceError>;
}
