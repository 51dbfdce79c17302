//! A GPU as a [`Device`].
#![expect(unsafe_code, reason = "the driver's functions are called here")]

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::c_int;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread;
use std::time::{Duration, Instant};

use super::facts::{attribute, facts, read_attribute};
use super::library::{CuDevice, Library, Raw};
use super::modules::Loaded;
use super::self_test::{self, Unfit};
use super::setup::SetupError;
use crate::device::{
    Block, Choice, Choices, Device, DeviceError, DeviceFacts, Format, HostBlock, PeerId, Refused, Span,
    Variant, Work,
};
use crate::kernels;

/// How long one piece of work may take before the GPU counts as hung: none is made to take as much as a second, and
/// whoever waits for a proof shall hear of a GPU that hangs within ten.
const HANG: Duration = Duration::from_secs(7);

/// One GPU, or MIG instance, with a context of its own on it.
#[derive(Debug)]
pub struct Gpu {
    pub(super) library: Arc<Library>,
    device: CuDevice,
    context: Raw,
    pub(super) streams: [Raw; 2],
    facts: DeviceFacts,
    /// Shared memory of one SM, and what one block may have of it, in bytes.
    pub(super) shared: [u32; 2],
    /// Words of device memory for tickets.
    pub(super) ticket: u64,
    pub(super) modules: RefCell<BTreeMap<&'static str, Result<Loaded, String>>>,
    blocks: RefCell<BTreeMap<u64, u64>>,
    host_blocks: RefCell<BTreeMap<u64, u64>>,
    peers: RefCell<Vec<(CuDevice, Raw)>>,
    /// Why the context is broken or hangs, where it is: to give anything back to it would hang or fail too.
    broken: RefCell<Option<DeviceError>>,
    /// Whose self-test did that, where they are kernels that had run on no GPU before.
    blamed: Cell<Option<Variant>>,
    patience: Duration,
    pub(super) ptx_alone: bool,
    /// How many GPUs of this process the driver compiles for now.
    pub(super) compiling: Arc<AtomicUsize>,
}

impl Gpu {
    /// Opens the device with this number in the driver's order.
    pub fn open(library: &Arc<Library>, ordinal: u32) -> Result<Self, SetupError> {
        let mut device = 0;
        let functions = &library.functions;
        let ordinal = c_int::try_from(ordinal).unwrap_or(c_int::MAX);
        // SAFETY: one integer is written.
        library.setup("cuDeviceGet", unsafe {
            (functions.device_get)(&raw mut device, ordinal)
        })?;
        let facts = facts(library, device)?;
        let shared = [attribute::SHARED_BYTES_PER_SM, attribute::SHARED_BYTES_PER_BLOCK]
            .map(|number| read_attribute(library, device, number).unwrap_or_default());
        let mut context = ptr::null_mut();
        // SAFETY: a handle is written; it is valid until it is released in `drop`.
        library.setup("cuDevicePrimaryCtxRetain", unsafe {
            (functions.primary_ctx_retain)(&raw mut context, device)
        })?;
        let mut gpu = Self {
            library: Arc::clone(library),
            device,
            context,
            streams: [ptr::null_mut(); 2],
            facts,
            shared,
            ticket: 0,
            modules: RefCell::default(),
            blocks: RefCell::default(),
            host_blocks: RefCell::default(),
            peers: RefCell::default(),
            broken: RefCell::default(),
            blamed: Cell::new(None),
            patience: HANG,
            ptx_alone: false,
            compiling: Arc::default(),
        };
        // SAFETY: the context was just retained; streams and memory are the context's.
        unsafe {
            library.setup("cuCtxSetCurrent", (functions.ctx_set_current)(context))?;
            for stream in &mut gpu.streams {
                library.setup("cuStreamCreate", (functions.stream_create)(&raw mut *stream, 1))?;
            }
            library.setup("cuMemAlloc", (functions.mem_alloc)(&raw mut gpu.ticket, 256))?;
        }
        Ok(gpu)
    }

    /// Fails where the driver takes not even the kernels that every proof needs: it takes none of the others either.
    pub fn try_kernels(&self) -> Result<(), SetupError> {
        let tried = self
            .enter()
            .map_err(|error| error.to_string())
            .and_then(|()| self.kernel(&kernels::MEMORY, "march"));
        tried.map(drop).map_err(SetupError::of_kernels)
    }

    /// What the device with this number is, without a context on it: nobody else's memory is needed for that.
    pub fn facts_of(library: &Arc<Library>, ordinal: u32) -> Result<DeviceFacts, SetupError> {
        let mut device = 0;
        let ordinal = c_int::try_from(ordinal).unwrap_or(c_int::MAX);
        // SAFETY: one integer is written.
        library.setup("cuDeviceGet", unsafe {
            (library.functions.device_get)(&raw mut device, ordinal)
        })?;
        facts(library, device)
    }

    /// Sets how long one piece of work may take before it counts as hung; seven seconds otherwise.
    pub const fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Leaves the machine code in the pack alone and has the driver compile the PTX, as `CUDA_FORCE_PTX_JIT=1` makes it do
    /// with programs of CUDA's toolkit: the driver itself looks at that variable only where it has both in one piece.
    pub const fn set_ptx_alone(&mut self, ptx_alone: bool) {
        self.ptx_alone = ptx_alone;
    }

    /// Counts itself there while the driver compiles kernels: that takes the CPU seconds, in which nothing else is heard.
    pub fn set_compiling(&mut self, compiling: Arc<AtomicUsize>) {
        self.compiling = compiling;
    }

    /// Makes the context the calling thread's.
    pub(super) fn enter(&self) -> Result<(), DeviceError> {
        if let Some(variant) = self.blamed.get() {
            return Err(DeviceError::Untested(variant));
        }
        if let Some(why) = &*self.broken.borrow() {
            return Err(why.clone());
        }
        // SAFETY: the context is retained as long as this is there.
        let code = unsafe { (self.library.functions.ctx_set_current)(self.context) };
        self.check("context", code)
    }

    /// A code of a call while work was done.
    pub(super) fn check(&self, work: &'static str, code: c_int) -> Result<(), DeviceError> {
        if code == 0 {
            return Ok(());
        }
        let reason = format!("{} ({code})", self.library.code_name(code));
        Err(match code {
            2 => DeviceError::OutOfMemory {
                wanted: 0,
                of: "the GPU",
            },
            3 | 4 | 46 | 101 | 201 | 709 | 999 => self.broken_by(DeviceError::Lost(reason)),
            214 | 220 | 226 | 700..=702 | 710 | 714..=719 => {
                self.broken_by(DeviceError::Stopped { work, reason })
            }
            801 => DeviceError::Unsupported(format!("the driver doesn't support `{work}` here: {reason}")),
            _ => DeviceError::Stopped { work, reason },
        })
    }

    /// Nothing more can be had of the context after this, which every later call gives as its reason.
    fn broken_by(&self, error: DeviceError) -> DeviceError {
        self.broken.borrow_mut().get_or_insert(error).clone()
    }

    /// Waits for events one after the other; each that comes is progress.
    pub(super) fn wait(&self, events: &[(&'static str, Raw)]) -> Result<(), DeviceError> {
        for &(work, event) in events {
            let since = Instant::now();
            loop {
                // SAFETY: the event was made by this context and is not destroyed yet.
                match unsafe { (self.library.functions.event_query)(event) } {
                    0 => break,
                    // Not ready.
                    600 => {}
                    code => return self.check(work, code),
                }
                if since.elapsed() > self.patience {
                    return Err(self.broken_by(DeviceError::Hang {
                        work,
                        seconds: self.patience.as_secs(),
                    }));
                }
                thread::sleep(Duration::from_micros(50));
            }
        }
        Ok(())
    }

    pub(super) fn event(&self) -> Result<Raw, DeviceError> {
        let mut event = ptr::null_mut();
        // SAFETY: a handle is written.
        let code = unsafe { (self.library.functions.event_create)(&raw mut event, 0) };
        self.check("event", code)?;
        Ok(event)
    }

    pub(super) fn record(&self, event: Raw, stream: Raw) -> Result<(), DeviceError> {
        // SAFETY: both are this context's.
        let code = unsafe { (self.library.functions.event_record)(event, stream) };
        self.check("event", code)
    }

    /// Waits until all work of the first stream is done.
    fn settle(&self, work: &'static str) -> Result<(), DeviceError> {
        let event = self.event()?;
        let waited = self
            .record(event, self.streams[0])
            .and_then(|()| self.wait(&[(work, event)]));
        self.forget_event(event);
        waited
    }

    pub(super) fn forget_event(&self, event: Raw) {
        if self.broken.borrow().is_none() {
            // SAFETY: the event is this context's, and not used any more.
            unsafe { (self.library.functions.event_destroy)(event) };
        }
    }

    /// The address of a span that lies in a block of this device.
    pub(super) fn address(&self, span: Span) -> Result<u64, DeviceError> {
        let known = self.blocks.borrow().get(&span.block.id).copied();
        let end = span.offset.checked_add(span.bytes);
        match (known, end) {
            (Some(bytes), Some(end)) if end <= bytes => Ok(span.block.id + span.offset),
            _ => Err(DeviceError::Unsupported(format!(
                "no block of this GPU has {} bytes from {} on",
                span.bytes, span.offset
            ))),
        }
    }

    /// The address of pinned memory that has at least so many bytes.
    pub(super) fn host_address(&self, block: HostBlock, bytes: u64) -> Result<*mut u8, DeviceError> {
        let known = self.host_blocks.borrow().get(&block.id).copied();
        match usize::try_from(block.id) {
            Ok(address) if known.is_some_and(|known| bytes <= known) => {
                Ok(ptr::with_exposed_provenance_mut(address))
            }
            _ => Err(DeviceError::Unsupported(format!(
                "no pinned block has {bytes} bytes"
            ))),
        }
    }

    pub(super) fn peer(&self, peer: PeerId) -> Result<(Raw, Raw), DeviceError> {
        let found = self.peers.borrow().get(peer.0 as usize).copied();
        found
            .map(|(_, context)| (self.context, context))
            .ok_or_else(|| DeviceError::Unsupported("that GPU was not reached before".to_owned()))
    }

    /// A variant that is loaded and gave the right answers, or why not.
    pub fn choice(&self, variant: Variant, format: Format) -> Result<Choice, Refused> {
        let refused = |reason, was_wrong| Refused {
            variant,
            reason,
            was_wrong,
        };
        let choice = self
            .shaped(variant, format)
            .map_err(|reason| refused(reason, false))?;
        match self_test::run(self, format, &choice) {
            Ok(()) => Ok(choice),
            Err(Unfit::Device(error)) => {
                if variant.is_untested() && self.broken.borrow().is_some() {
                    self.blamed.set(Some(variant));
                }
                Err(refused(error.to_string(), false))
            }
            Err(Unfit::Wrong(what)) => Err(refused(format!("its self-test failed: {what}"), true)),
        }
    }

    /// A variant that is loaded, or why it can't be.
    fn shaped(&self, variant: Variant, format: Format) -> Result<Choice, String> {
        self.enter().map_err(|error| error.to_string())?;
        let module = kernels::module(variant, format, self.facts.compute_capability)
            .ok_or_else(|| format!("has no {format}"))?;
        let source = self.kernel(&module, &format!("gemm_{format}"))?.source;
        let shape = kernels::shape(variant, format);
        if matches!(variant, Variant::Wgmma | Variant::Tcgen05) && self.library.functions.tensor_map.is_none()
        {
            return Err("the driver has no `cuTensorMapEncodeTiled`: it is older than CUDA 12".to_owned());
        }
        let needed = (shape.stage_bytes * shape.stages.min(2)).max(shape.loop_bytes);
        if needed > self.shared[1].max(48 << 10) {
            return Err(format!(
                "needs {needed} bytes of shared memory, a block has {}",
                self.shared[1]
            ));
        }
        Ok(Choice {
            variant,
            source,
            tile_rows: shape.tile_rows,
            tile_columns: shape.tile_columns,
            k_step: shape.k_step,
            loop_shape: shape.loop_shape,
        })
    }

    /// Does lists of work, one for each stream, and tells how long each piece took.
    fn run_all(&self, lists: &[&[Work]]) -> Result<Vec<Vec<Duration>>, DeviceError> {
        self.enter()?;
        let mut events: Vec<Vec<Raw>> = Vec::new();
        let done = self.enqueue(lists, &mut events).and_then(|()| {
            let mut names: Vec<(&'static str, Raw)> = Vec::new();
            for (list, events) in lists.iter().zip(&events) {
                names.extend(
                    events
                        .iter()
                        .skip(1)
                        .zip(*list)
                        .map(|(&event, work)| (work.name(), event)),
                );
            }
            // The lists run side by side: what is waited for first may end last.
            self.wait(&names)?;
            events.iter().map(|events| self.durations(events)).collect()
        });
        for event in events.into_iter().flatten() {
            self.forget_event(event);
        }
        done
    }

    fn enqueue(&self, lists: &[&[Work]], events: &mut Vec<Vec<Raw>>) -> Result<(), DeviceError> {
        let functions = &self.library.functions;
        if lists.len() > 1 {
            // Both wait for the same event, which comes when all is queued, or nearly so.
            self.launch(self.streams[0], &Work::Spin { nanoseconds: 200_000 })?;
        }
        for (list, &stream) in lists.iter().zip(&self.streams) {
            let first = self.event()?;
            events.push(vec![first]);
            if let Some(&gate) = events.first().and_then(|events| events.first())
                && gate != first
            {
                // SAFETY: stream and event are this context's.
                let code = unsafe { (functions.stream_wait_event)(stream, gate, 0) };
                self.check("event", code)?;
            }
            self.record(first, stream)?;
            let _ = list;
        }
        for ((list, &stream), events) in lists.iter().zip(&self.streams).zip(events) {
            for work in *list {
                self.launch(stream, work)?;
                let event = self.event()?;
                events.push(event);
                self.record(event, stream)?;
            }
        }
        Ok(())
    }

    fn durations(&self, events: &[Raw]) -> Result<Vec<Duration>, DeviceError> {
        let mut durations = Vec::new();
        for pair in events.windows(2) {
            let mut milliseconds = 0.0;
            // SAFETY: both events came; one number is written.
            let code =
                unsafe { (self.library.functions.event_elapsed)(&raw mut milliseconds, pair[0], pair[1]) };
            self.check("event", code)?;
            durations.push(Duration::from_secs_f64(f64::from(milliseconds.max(0.0)) / 1000.0));
        }
        Ok(durations)
    }
}

impl Device for Gpu {
    fn facts(&self) -> &DeviceFacts {
        &self.facts
    }

    fn free_memory(&self) -> Result<u64, DeviceError> {
        self.enter()?;
        let (mut free, mut all) = (0_usize, 0_usize);
        // SAFETY: two numbers are written.
        let code = unsafe { (self.library.functions.mem_get_info)(&raw mut free, &raw mut all) };
        self.check("memory", code)?;
        Ok(free as u64)
    }

    fn allocate(&self, bytes: u64) -> Result<Block, DeviceError> {
        self.enter()?;
        let mut id = 0;
        let wanted = usize::try_from(bytes).unwrap_or(usize::MAX);
        // SAFETY: one address is written.
        match unsafe { (self.library.functions.mem_alloc)(&raw mut id, wanted) } {
            2 => Err(DeviceError::OutOfMemory {
                wanted: bytes,
                of: "the GPU",
            }),
            code => {
                self.check("memory", code)?;
                self.blocks.borrow_mut().insert(id, bytes);
                Ok(Block { id, bytes })
            }
        }
    }

    fn release(&self, block: Block) -> Result<(), DeviceError> {
        self.enter()?;
        self.settle("memory")?;
        if self.blocks.borrow_mut().remove(&block.id).is_none() {
            return Ok(());
        }
        // SAFETY: the block was allocated by this context, all work is done, and it is forgotten.
        let code = unsafe { (self.library.functions.mem_free)(block.id) };
        self.check("memory", code)
    }

    fn allocate_host(&self, bytes: u64) -> Result<HostBlock, DeviceError> {
        self.enter()?;
        let mut address = ptr::null_mut();
        let wanted = usize::try_from(bytes).unwrap_or(usize::MAX);
        // SAFETY: one address is written.
        match unsafe { (self.library.functions.mem_host_alloc)(&raw mut address, wanted, 0) } {
            2 => Err(DeviceError::OutOfMemory {
                wanted: bytes,
                of: "the host",
            }),
            code => {
                self.check("pinned memory", code)?;
                let id = address.expose_provenance() as u64;
                self.host_blocks.borrow_mut().insert(id, bytes);
                Ok(HostBlock { id, bytes })
            }
        }
    }

    fn release_host(&self, block: HostBlock) -> Result<(), DeviceError> {
        self.enter()?;
        self.settle("pinned memory")?;
        let address = self.host_address(block, 0)?;
        self.host_blocks.borrow_mut().remove(&block.id);
        // SAFETY: the block was allocated by this context, all work is done, and it is forgotten.
        let code = unsafe { (self.library.functions.mem_free_host)(address.cast()) };
        self.check("pinned memory", code)
    }

    fn write_host(&self, block: HostBlock, offset: u64, data: &[u8]) -> Result<(), DeviceError> {
        let address = self.host_address(block, offset.saturating_add(data.len() as u64))?;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        // SAFETY: the block is that long, and no work is under way: `run` waits for all.
        unsafe { ptr::copy_nonoverlapping(data.as_ptr(), address.add(offset), data.len()) };
        Ok(())
    }

    fn read_host(&self, block: HostBlock, offset: u64, data: &mut [u8]) -> Result<(), DeviceError> {
        let address = self.host_address(block, offset.saturating_add(data.len() as u64))?;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        // SAFETY: as above.
        unsafe { ptr::copy_nonoverlapping(address.add(offset), data.as_mut_ptr(), data.len()) };
        Ok(())
    }

    fn write(&self, to: Span, data: &[u8]) -> Result<(), DeviceError> {
        self.enter()?;
        let address = self.address(to.block.part(to.offset, data.len() as u64))?;
        // A copy of memory that is not pinned waits in the driver, where nobody could give it up.
        self.settle("write")?;
        // SAFETY: source and target are that long.
        let code = unsafe {
            (self.library.functions.copy_to_device)(
                address,
                data.as_ptr().cast(),
                data.len(),
                self.streams[0],
            )
        };
        self.check("write", code)?;
        self.settle("write")
    }

    fn read(&self, from: Span, data: &mut [u8]) -> Result<(), DeviceError> {
        self.enter()?;
        let address = self.address(from.block.part(from.offset, data.len() as u64))?;
        self.settle("read")?;
        // SAFETY: source and target are that long.
        let code = unsafe {
            (self.library.functions.copy_to_host)(
                data.as_mut_ptr().cast(),
                address,
                data.len(),
                self.streams[0],
            )
        };
        self.check("read", code)?;
        self.settle("read")
    }

    fn choices(&self, format: Format, among: &[Variant]) -> Choices {
        let mut choices = Choices::default();
        for &variant in among {
            match self.choice(variant, format) {
                Ok(choice) => {
                    choices.usable.push(choice);
                    break;
                }
                Err(refused) => choices.refused.push(refused),
            }
        }
        choices
    }

    fn loop_ctas_per_sm(&self, variant: Variant, format: Format) -> u32 {
        self.enter()
            .ok()
            .and_then(|()| self.occupancy(variant, format))
            .unwrap_or(1)
            .max(1)
    }

    fn run(&self, work: &[Work]) -> Result<Vec<Duration>, DeviceError> {
        Ok(self.run_all(&[work])?.pop().unwrap_or_default())
    }

    fn run_beside(&self, first: &[Work], second: &[Work]) -> Result<[Vec<Duration>; 2], DeviceError> {
        let mut both = self.run_all(&[first, second])?.into_iter();
        Ok([both.next().unwrap_or_default(), both.next().unwrap_or_default()])
    }

    fn reach(&self, peer: &DeviceFacts) -> Result<PeerId, DeviceError> {
        self.enter()?;
        let functions = &self.library.functions;
        let ordinals: BTreeSet<c_int> =
            (0..c_int::try_from(self.library.devices()).unwrap_or_default()).collect();
        for ordinal in ordinals {
            let mut device = 0;
            // SAFETY: one integer is written.
            if unsafe { (functions.device_get)(&raw mut device, ordinal) } != 0 || device == self.device {
                continue;
            }
            if facts(&self.library, device).is_ok_and(|facts| facts.uuid == peer.uuid) {
                return self.reach_device(device);
            }
        }
        Err(DeviceError::Unsupported(format!(
            "this process doesn't see {}",
            peer.uuid
        )))
    }
}

impl Gpu {
    fn reach_device(&self, device: CuDevice) -> Result<PeerId, DeviceError> {
        let functions = &self.library.functions;
        let known = self.peers.borrow().iter().position(|&(known, _)| known == device);
        if let Some(index) = known {
            return Ok(PeerId(u32::try_from(index).unwrap_or_default()));
        }
        let mut can = 0;
        // SAFETY: one integer is written.
        let code = unsafe { (functions.device_can_access_peer)(&raw mut can, self.device, device) };
        self.check("peer", code)?;
        if can == 0 {
            return Err(DeviceError::Unsupported(
                "the driver allows no direct access between these GPUs".to_owned(),
            ));
        }
        let mut context = ptr::null_mut();
        // SAFETY: a handle is written; the other device's own `Gpu` keeps it too.
        let code = unsafe { (functions.primary_ctx_retain)(&raw mut context, device) };
        self.check("peer", code)?;
        // SAFETY: the context is retained; 704 says that it was enabled before.
        match unsafe { (functions.ctx_enable_peer_access)(context, 0) } {
            704 => {}
            code => self.check("peer", code)?,
        }
        let mut peers = self.peers.borrow_mut();
        peers.push((device, context));
        Ok(PeerId(u32::try_from(peers.len() - 1).unwrap_or_default()))
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        if self.broken.get_mut().is_some() {
            return;
        }
        let functions = &self.library.functions;
        // SAFETY: all handles are this context's; nothing uses them any more, as `run` waits for all work.
        unsafe {
            (functions.ctx_set_current)(self.context);
            for &block in self.blocks.get_mut().keys() {
                (functions.mem_free)(block);
            }
            for &block in self.host_blocks.get_mut().keys() {
                (functions.mem_free_host)(ptr::with_exposed_provenance_mut(
                    usize::try_from(block).unwrap_or_default(),
                ));
            }
            (functions.mem_free)(self.ticket);
            for stream in self.streams.into_iter().filter(|stream| !stream.is_null()) {
                (functions.stream_destroy)(stream);
            }
            for &(device, _) in self.peers.get_mut().iter() {
                (functions.primary_ctx_release)(device);
            }
            (functions.primary_ctx_release)(self.device);
        }
    }
}
