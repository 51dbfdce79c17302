//! Each piece of work as launches and copies. Structs here are those of the kernels: `common.cuh`, `memory.cu`.
#![expect(unsafe_code, reason = "the driver's functions are called here")]

use std::ffi::{c_uint, c_void};
use std::ptr;

use super::gpu::Gpu;
use super::library::Raw;
use super::modules::Function;
use crate::device::{Device as _, DeviceError, Format, Pattern, Span, Work};
use crate::kernels::MEMORY;

#[repr(C)]
struct MarchArguments {
    words: u64,
    count: u64,
    log: u64,
    read_seed: u64,
    write_seed: u64,
    read_kind: u32,
    write_kind: u32,
    descending: u32,
}

/// Grid, threads and dynamic shared memory.
pub(super) struct Size {
    pub(super) grid: u32,
    pub(super) threads: u32,
    pub(super) shared: u32,
}

/// Pointers to arguments, as a launch takes them.
macro_rules! arguments {
    ($($argument:expr),* $(,)?) => { &mut [$((&raw mut $argument).cast::<c_void>()),*] };
}

pub(super) use arguments;

pub(super) fn unsupported(text: String) -> DeviceError {
    DeviceError::Unsupported(text)
}

/// In the order of `enum Format` of `common.cuh`.
pub(super) const fn number(format: Format) -> u32 {
    match format {
        Format::Bf16 => 0,
        Format::Fp16 => 1,
        Format::Tf32 => 2,
        Format::Fp8 => 3,
        Format::Int8 => 4,
        Format::Fp32 => 5,
        Format::Fp64 => 6,
    }
}

const fn kind(pattern: Option<Pattern>) -> (u32, u64) {
    match pattern {
        None => (0, 0),
        Some(Pattern::Counter(seed)) => (1, seed),
        Some(Pattern::CounterComplement(seed)) => (2, seed),
        Some(Pattern::Constant(word)) => (3, word),
    }
}

/// A grid with a thread for each of so many, as far as a grid goes.
fn a_thread_for_each(count: u64) -> Size {
    let grid = count.div_ceil(1024).clamp(1, 1 << 30);
    Size {
        grid: u32::try_from(grid).unwrap_or(1 << 30),
        threads: 1024,
        shared: 0,
    }
}

pub(super) fn at_least(span: Span, bytes: u64, what: &str) -> Result<(), DeviceError> {
    if span.bytes >= bytes {
        return Ok(());
    }
    Err(unsupported(format!(
        "{what} needs {bytes} bytes and has {}",
        span.bytes
    )))
}

impl Gpu {
    /// Queues one piece of work.
    pub(super) fn launch(&self, stream: Raw, work: &Work) -> Result<(), DeviceError> {
        let name = work.name();
        match *work {
            Work::Operands {
                to,
                format,
                rows,
                k,
                seed,
            } => {
                at_least(
                    to,
                    u64::from(rows) * u64::from(k) * format.operand_bytes(),
                    "a matrix",
                )?;
                let (mut to, mut format, mut rows, mut k, mut seed) =
                    (self.address(to)?, number(format), rows, k, seed);
                self.start(
                    stream,
                    name,
                    &self.wide(256),
                    arguments![to, format, rows, k, seed],
                )
            }
            Work::March {
                span,
                read,
                write,
                descending,
                log,
            } => {
                let ((read_kind, read_seed), (write_kind, write_seed)) = (kind(read), kind(write));
                let mut job = MarchArguments {
                    words: self.address(span)?,
                    count: span.bytes / 8,
                    log: self.address(log)?,
                    read_seed,
                    write_seed,
                    read_kind,
                    write_kind,
                    descending: u32::from(descending),
                };
                let size = a_thread_for_each(span.bytes / 16);
                self.start(stream, name, &size, arguments![job])
            }
            Work::Copy { from, to } => {
                at_least(to, from.bytes, "a copy")?;
                let (mut to, mut source, mut chunks) =
                    (self.address(to)?, self.address(from)?, from.bytes / 16);
                let size = a_thread_for_each(chunks);
                self.start(stream, name, &size, arguments![to, source, chunks])
            }
            Work::Triad { a, b, c } => {
                at_least(b, a.bytes, "a triad")?;
                at_least(c, a.bytes, "a triad")?;
                let (mut to, mut b, mut c, mut chunks) =
                    (self.address(a)?, self.address(b)?, self.address(c)?, a.bytes / 16);
                let size = a_thread_for_each(chunks);
                self.start(stream, name, &size, arguments![to, b, c, chunks])
            }
            Work::ReadCached { from, passes, sum } => {
                at_least(sum, 8, "a sum")?;
                let (mut source, mut chunks, mut passes, mut sum) =
                    (self.address(from)?, from.bytes / 16, passes, self.address(sum)?);
                self.zero(stream, name, sum, 2)?;
                self.start(
                    stream,
                    name,
                    &self.wide(512),
                    arguments![source, chunks, passes, sum],
                )
            }
            Work::Spin { mut nanoseconds } => {
                let size = Size {
                    grid: 1,
                    threads: 1,
                    shared: 0,
                };
                self.start(stream, name, &size, arguments![nanoseconds])
            }
            Work::MmaLoop { .. } | Work::Gemm(_) | Work::Recompute { .. } => self.launch_matrix(stream, work),
            Work::ToDevice { .. } | Work::ToHost { .. } | Work::ToPeer { .. } | Work::FromPeer { .. } => {
                self.queue_copy(stream, work)
            }
        }
    }

    /// Enough CTAs of so many threads to fill every SM.
    pub(super) fn wide(&self, threads: u32) -> Size {
        Size {
            grid: self.facts().sms * (2048 / threads),
            threads,
            shared: 0,
        }
    }

    pub(super) fn zero(
        &self,
        stream: Raw,
        work: &'static str,
        address: u64,
        words: usize,
    ) -> Result<(), DeviceError> {
        // SAFETY: the address is in a block of this context and has so many words: the caller looked.
        let code = unsafe { (self.library.functions.set_words)(address, 0, words, stream) };
        self.check(work, code)
    }

    /// A kernel of `memory.cu`.
    pub(super) fn start(
        &self,
        stream: Raw,
        name: &'static str,
        size: &Size,
        arguments: &mut [*mut c_void],
    ) -> Result<(), DeviceError> {
        let function = self
            .kernel(&MEMORY, name)
            .map_err(|reason| unsupported(format!("no kernel for `{name}`: {reason}")))?;
        self.start_function(stream, name, function, size, arguments)
    }

    pub(super) fn start_function(
        &self,
        stream: Raw,
        work: &'static str,
        function: Function,
        size: &Size,
        arguments: &mut [*mut c_void],
    ) -> Result<(), DeviceError> {
        let functions = &self.library.functions;
        if size.shared > 0 {
            // `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`; drivers before CUDA 9 don't know it, and what fits
            // without it is launched all the same.
            let bytes = i32::try_from(size.shared).unwrap_or(i32::MAX);
            // SAFETY: the function is a loaded module's.
            let code = unsafe { (functions.func_set_attribute)(function.raw, 8, bytes) };
            if size.shared > 48 << 10 {
                self.check(work, code)?;
            }
        }
        // SAFETY: the arguments are those of the kernel of that name, and live until the launch has copied them.
        let code = unsafe {
            (functions.launch_kernel)(
                function.raw,
                size.grid as c_uint,
                1,
                1,
                size.threads as c_uint,
                1,
                1,
                size.shared as c_uint,
                stream,
                arguments.as_mut_ptr(),
                ptr::null_mut(),
            )
        };
        self.check(work, code)
    }
}
