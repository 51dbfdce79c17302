//! A device on the CPU, with faults: everything but the GPU itself runs as on one.
//!
//! It computes for real, in plain loops, but little: [`Device::scale`] says for how much each byte and operation stands.
//! Its time is imaginary too: work takes as long as it would on the card whose rates it was given, and no longer than
//! the CPU needs.

mod arithmetic;
mod memory;
mod work;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::device::{
    Block, Choice, Choices, CodeSource, Device, DeviceError, DeviceFacts, Fault, Format, HostBlock,
    LoopShape, PeerId, Refused, Scale, Span, Variant, Work,
};
use crate::kernels;
use crate::pace::Pace;
use memory::{Memory, Stuck, index};

/// What is wrong with a stand-in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ailment {
    /// An SM flips a bit of one accumulator, in every `every`th loop or GEMM that it takes part in.
    BadSm {
        /// The SM.
        sm: u32,
        /// The bit.
        bit: u32,
        /// 1 for always.
        every: u32,
    },
    /// An SM takes longer than the others, by this factor.
    SlowSm {
        /// The SM.
        sm: u32,
        /// How much longer.
        factor: f64,
    },
    /// A bit of memory always reads the same.
    StuckBit {
        /// Byte of the memory.
        address: u64,
        /// Bit of the byte.
        bit: u8,
        /// What it reads as.
        value: bool,
    },
    /// The memory under one operand of every GEMM turns one of its bits.
    BadOperand {
        /// It is B's, not A's.
        of_b: bool,
        /// Row of A, or of B as it is stored.
        row: u32,
        /// Place along K.
        k: u32,
        /// Bit of the operand.
        bit: u32,
    },
    /// Memory under C turns a bit after it was written.
    BadOutput {
        /// Which value, counted row by row.
        index: u64,
        /// Bit of its lowest byte.
        bit: u8,
    },
    /// In one GEMM, counted from 0, one accumulator of one tile has a bit flipped.
    FlipOnce {
        /// Which GEMM.
        gemm: u64,
        /// Which tile.
        tile: u32,
        /// The bit.
        bit: u32,
    },
    /// In one pass of a march, counted from 0, one word is read wrong once.
    MisreadOnce {
        /// Which pass.
        pass: u64,
        /// Which word of it.
        word: u64,
        /// The bit.
        bit: u32,
    },
    /// Every copy between host and device turns a bit of the first byte, to the device or from it.
    BadTransfer {
        /// The bit.
        bit: u8,
    },
    /// It doesn't answer any more after this time.
    LostAfter(Duration),
    /// Work doesn't end any more after this time.
    HangsAfter(Duration),
    /// Kernels are stopped after this time, as by an uncorrectable memory error.
    StoppedAfter(Duration),
    /// Others hold all of its memory but for so many bytes of the card's.
    FullBut(u64),
    /// A variant gives nonsense, on every SM.
    BrokenVariant(Variant),
}

/// How fast a stand-in is: rates that a card reaches, not those of its datasheet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Operations a second with bf16 and fp16 operands.
    pub half: f64,
    /// With FP8 and INT8; none where the card can't.
    pub byte: Option<f64>,
    /// With TF32; none where the card can't.
    pub tf32: Option<f64>,
    /// With FP32.
    pub single: f64,
    /// With FP64.
    pub double: f64,
    /// Bytes of memory read or written a second.
    pub memory: f64,
    /// Bytes a second from the L2 cache.
    pub cache: f64,
    /// Bytes a second from or to the host.
    pub host: f64,
    /// Bytes a second to a peer; none without a way.
    pub peer: Option<f64>,
    /// Clock of the SMs in MHz.
    pub clock_mhz: f64,
}

impl Rates {
    fn of(&self, format: Format) -> Option<f64> {
        match format {
            Format::Bf16 | Format::Fp16 => Some(self.half),
            Format::Fp8 | Format::Int8 => self.byte,
            Format::Tf32 => self.tf32,
            Format::Fp32 => Some(self.single),
            Format::Fp64 => Some(self.double),
        }
    }
}

/// What a stand-in is.
#[derive(Debug, Clone)]
pub struct Description {
    /// The card's facts, at full size.
    pub facts: DeviceFacts,
    /// How fast it is.
    pub rates: Rates,
    /// What is wrong with it.
    pub ailments: Vec<Ailment>,
    /// Seed of what differs from run to run: times by a few thousandths.
    pub seed: u64,
}

/// A device on the CPU.
#[derive(Debug)]
pub struct StandIn {
    description: Description,
    scale: Scale,
    memory: Arc<Mutex<Memory>>,
    peers: RefCell<Vec<(String, Arc<Mutex<Memory>>)>>,
    hosts: RefCell<BTreeMap<u64, Vec<u8>>>,
    elapsed: Cell<Duration>,
    random: Cell<u64>,
    gemms: Cell<u64>,
    loops: Cell<u64>,
    passes: Cell<u64>,
    product: RefCell<Option<Arc<work::Product>>>,
}

/// Memory that it has, whatever the card has.
const MEMORY: u64 = 4 << 20;
/// Rows and columns of a tile of its GEMM.
const TILE: u32 = 8;
/// K of its GEMM.
const K: u32 = 64;
/// How long one launch of the loop takes with bf16 operands.
const LAUNCH: Duration = Duration::from_millis(25);
/// Work that does not end is given up after so long.
const PATIENCE: Duration = Duration::from_secs(10);

const LOOP: LoopShape = LoopShape {
    rows: 8,
    columns: 16,
    k: 16,
    repeats: 2,
    warps: 2,
    registers: 2,
    place,
};

/// Warps lie side by side, each 8 x 8; a lane holds two neighbours.
const fn place(warp: u32, lane: u32, register: u32) -> (u32, u32) {
    (lane / 4, warp * 8 + lane % 4 * 2 + register)
}

impl StandIn {
    /// A device as described.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "sizes of a card, to three figures"
    )]
    pub fn new(description: Description) -> Self {
        let facts = &description.facts;
        // A tile for every SM at least.
        let tiles = f64::from(facts.sms).sqrt().ceil() as u32 + 1;
        let loop_operations = LOOP.operations() * 2 * u64::from(facts.sms.max(1));
        let operations = description.rates.half * LAUNCH.as_secs_f64() / loop_operations as f64;
        let scale = Scale {
            bytes: (facts.memory_bytes / MEMORY).max(1),
            operations: (operations as u64).max(1),
            edge: tiles * TILE,
            k: K,
            rounds: 2,
        };
        let mut memory = Memory::new(MEMORY);
        for ailment in &description.ailments {
            if let &Ailment::StuckBit { address, bit, value } = ailment {
                memory.stick(Stuck { address, bit, value });
            }
        }
        let random = Cell::new(description.seed | 1);
        Self {
            description,
            scale,
            memory: Arc::new(Mutex::new(memory)),
            peers: RefCell::default(),
            hosts: RefCell::default(),
            elapsed: Cell::default(),
            random,
            gemms: Cell::default(),
            loops: Cell::default(),
            passes: Cell::default(),
            product: RefCell::default(),
        }
    }

    /// Gives each a way to the memory of the others.
    pub fn connect(devices: &[Self]) {
        for device in devices {
            *device.peers.borrow_mut() = devices
                .iter()
                .map(|peer| (peer.description.facts.uuid.clone(), Arc::clone(&peer.memory)))
                .collect();
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }

    fn memory_of(&self, peer: PeerId) -> Result<Arc<Mutex<Memory>>, DeviceError> {
        let peers = self.peers.borrow();
        let found = peers.get(index(u64::from(peer.0)));
        let (_, memory) = found.ok_or_else(|| DeviceError::Unsupported("no such peer".to_owned()))?;
        Ok(Arc::clone(memory))
    }

    fn ailments<T>(&self, pick: impl Fn(&Ailment) -> Option<T>) -> impl Iterator<Item = T> {
        self.description.ailments.iter().filter_map(pick)
    }

    /// What takes `seconds` on the card takes a few thousandths more or less.
    fn jitter(&self, seconds: f64) -> Duration {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        let thousandths = f64::from(u32::try_from(x % 7).unwrap_or_default()) - 3.0;
        Duration::try_from_secs_f64(seconds * (1.0 + thousandths / 1000.0)).unwrap_or(Duration::MAX)
    }

    fn pass(&self, time: Duration) {
        self.elapsed.set(self.elapsed.get().saturating_add(time));
    }

    /// Fails where it is lost, hangs or was stopped by now.
    fn answers(&self, work: &'static str) -> Result<(), DeviceError> {
        for ailment in &self.description.ailments {
            match *ailment {
                Ailment::LostAfter(time) if self.elapsed.get() >= time => {
                    return Err(DeviceError::Lost(
                        "it no longer answers on the PCI bus".to_owned(),
                    ));
                }
                Ailment::HangsAfter(time) if self.elapsed.get() >= time => {
                    self.pass(PATIENCE);
                    return Err(DeviceError::Hang {
                        work,
                        seconds: PATIENCE.as_secs(),
                    });
                }
                Ailment::StoppedAfter(time) if self.elapsed.get() >= time => {
                    return Err(DeviceError::Stopped {
                        work,
                        reason: "uncorrectable ECC error encountered".to_owned(),
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Bytes that others hold.
    fn taken(&self) -> u64 {
        self.ailments(|ailment| match ailment {
            Ailment::FullBut(bytes) => Some(MEMORY.saturating_sub(bytes / self.scale.bytes)),
            _ => None,
        })
        .max()
        .unwrap_or(0)
    }
}

impl Pace for StandIn {
    fn elapsed(&self) -> Duration {
        self.elapsed.get()
    }

    fn rest(&self, time: Duration) {
        self.pass(time);
    }
}

impl Device for StandIn {
    fn facts(&self) -> &DeviceFacts {
        &self.description.facts
    }

    fn free_memory(&self) -> Result<u64, DeviceError> {
        self.answers("memory")?;
        Ok(self.memory().free().saturating_sub(self.taken()))
    }

    fn allocate(&self, bytes: u64) -> Result<Block, DeviceError> {
        self.answers("memory")?;
        let mut memory = self.memory();
        if memory.free().saturating_sub(self.taken()) < bytes {
            return Err(DeviceError::OutOfMemory {
                wanted: bytes,
                of: "the GPU",
            });
        }
        memory.allocate(bytes)
    }

    fn release(&self, block: Block) -> Result<(), DeviceError> {
        self.memory().release(block)
    }

    fn allocate_host(&self, bytes: u64) -> Result<HostBlock, DeviceError> {
        let mut hosts = self.hosts.borrow_mut();
        let id = hosts.keys().next_back().map_or(0, |last| last + 1);
        hosts.insert(id, vec![0; index(bytes)]);
        Ok(HostBlock { id, bytes })
    }

    fn release_host(&self, block: HostBlock) -> Result<(), DeviceError> {
        let removed = self.hosts.borrow_mut().remove(&block.id);
        removed
            .map(|_| ())
            .ok_or_else(|| DeviceError::Unsupported("this block was never given away".to_owned()))
    }

    fn write_host(&self, block: HostBlock, offset: u64, data: &[u8]) -> Result<(), DeviceError> {
        let mut hosts = self.hosts.borrow_mut();
        let target = hosts.get_mut(&block.id).and_then(|host| {
            let start = index(offset);
            host.get_mut(start..start.checked_add(data.len())?)
        });
        target.ok_or_else(outside)?.copy_from_slice(data);
        Ok(())
    }

    fn read_host(&self, block: HostBlock, offset: u64, data: &mut [u8]) -> Result<(), DeviceError> {
        let hosts = self.hosts.borrow();
        let source = hosts.get(&block.id).and_then(|host| {
            let start = index(offset);
            host.get(start..start.checked_add(data.len())?)
        });
        data.copy_from_slice(source.ok_or_else(outside)?);
        Ok(())
    }

    fn write(&self, to: Span, data: &[u8]) -> Result<(), DeviceError> {
        self.answers("copy")?;
        self.memory().write(to, data)
    }

    fn read(&self, from: Span, data: &mut [u8]) -> Result<(), DeviceError> {
        self.answers("copy")?;
        let from = from.block.part(from.offset, data.len() as u64);
        data.copy_from_slice(self.memory().read(from)?);
        Ok(())
    }

    fn choices(&self, format: Format, among: &[Variant]) -> Choices {
        let cc = self.description.facts.compute_capability;
        let refuse = |variant, reason: &str| Refused {
            variant,
            reason: reason.to_owned(),
            was_wrong: false,
        };
        let choice = |variant| Choice {
            variant,
            source: CodeSource::StandIn,
            tile_rows: TILE,
            tile_columns: TILE,
            k_step: 1,
            loop_shape: LOOP,
        };
        if self.description.rates.of(format).is_none() {
            return Choices {
                usable: Vec::new(),
                refused: vec![refuse(
                    Variant::Simt,
                    &format!("{format} needs a newer GPU than compute capability {cc}"),
                )],
            };
        }
        let runs = |variant: &&Variant| {
            kernels::module(**variant, format, cc).is_some_and(|module| module.target.includes(cc))
        };
        Choices {
            usable: among.iter().filter(runs).copied().map(choice).collect(),
            refused: Vec::new(),
        }
    }

    fn loop_ctas_per_sm(&self, _variant: Variant, _format: Format) -> u32 {
        1
    }

    fn run(&self, work: &[Work]) -> Result<Vec<Duration>, DeviceError> {
        let mut times = Vec::with_capacity(work.len());
        for work in work {
            self.answers(work.name())?;
            let time = self.do_work(work)?;
            self.pass(time);
            times.push(time);
        }
        Ok(times)
    }

    fn run_beside(&self, first: &[Work], second: &[Work]) -> Result<[Vec<Duration>; 2], DeviceError> {
        let start = self.elapsed.get();
        let first = self.run(first)?;
        let middle = self.elapsed.get();
        let second = self.run(second)?;
        let longest = middle
            .saturating_sub(start)
            .max(self.elapsed.get().saturating_sub(middle));
        self.elapsed.set(start + longest);
        Ok([first, second])
    }

    fn scale(&self) -> Scale {
        self.scale
    }

    fn reach(&self, peer: &DeviceFacts) -> Result<PeerId, DeviceError> {
        let position = self
            .peers
            .borrow()
            .iter()
            .position(|(uuid, _)| *uuid == peer.uuid);
        match (position, self.description.rates.peer) {
            (Some(position), Some(_)) => Ok(PeerId(u32::try_from(position).unwrap_or(u32::MAX))),
            _ => Err(DeviceError::Unsupported(
                "there is no way between these GPUs but through the host's memory".to_owned(),
            )),
        }
    }
}

fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

fn outside() -> DeviceError {
    DeviceError::Unsupported("this is outside of the pinned memory".to_owned())
}
