//! What every phase works on: the device, its time, who watches it and who listens.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pitcrew_core::proof::{Corruption, CorruptionClass, Sample, XidEvent};

use crate::device::{
    Block, Choice, Choices, Device, DeviceError, Fault, Format, HostBlock, Refused, Span, Variant, Work,
};
use crate::inject::Inject;
use crate::kernels;
use crate::lane::Lane;
use crate::pace::Pace;
use crate::progress::Progress;
use crate::telemetry::Watch;
use crate::verify::records::MarchError;

/// The XID of a GPU that has fallen off the bus.
const FALLEN_OFF: u32 = 79;
/// A batch takes about so long: short enough to be cancelled in time, long enough to be timed.
pub(crate) const BATCH: Duration = Duration::from_millis(120);
/// How long the way to the host is waited for: longer than a GPU that hangs is, and all others need.
const LANE: Duration = Duration::from_secs(10);
/// Samples that are kept: more than an hour at five a second. Then every second one goes.
const MOST_SAMPLES: usize = 20_000;
/// Corruptions of one phase that are told one by one.
pub(crate) const MOST_CORRUPTIONS: usize = 1000;

/// Why a phase ends early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Somebody wants it to.
    Cancelled,
    /// The device can't go on, or not with this.
    Device(DeviceError),
    /// It can't be done here, for this reason.
    Unsupported(String),
}

impl From<DeviceError> for Stop {
    fn from(error: DeviceError) -> Self {
        match error {
            DeviceError::Unsupported(why) => Self::Unsupported(why),
            error => Self::Device(error),
        }
    }
}

/// Everything that a phase needs.
pub(crate) struct Bench<'a> {
    pub(crate) device: &'a dyn Device,
    pub(crate) pace: &'a dyn Pace,
    pub(crate) lane: &'a Lane,
    pub(crate) is_cancelled: &'a dyn Fn() -> bool,
    pub(crate) watch: &'a mut dyn Watch,
    pub(crate) tell: &'a mut dyn FnMut(Progress),
    pub(crate) inject: &'a [Inject],
    /// Part of the free memory that is marched over.
    pub(crate) memory: f64,
    /// What runs for each format, after the self-test.
    pub(crate) choices: BTreeMap<Format, Choices>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) xids: Vec<XidEvent>,
    /// Rate of the products that run now, in TFLOP/s, for the samples.
    pub(crate) tflops: Option<f64>,
    /// Verified outputs and corruptions of all other phases.
    pub(crate) elsewhere: (u64, u64),
}

impl Bench<'_> {
    /// What runs for a format.
    pub(crate) fn choice(&self, format: Format) -> Option<Choice> {
        self.choices.get(&format)?.usable.first().copied()
    }

    /// Does work and looks round afterwards. Each list of work should take about [`BATCH`].
    pub(crate) fn run(&mut self, work: &[Work]) -> Result<Vec<Duration>, Stop> {
        let times = self.device.run(work)?;
        self.look_round()?;
        Ok(times)
    }

    /// Two lists at once.
    pub(crate) fn run_beside(&mut self, first: &[Work], second: &[Work]) -> Result<[Vec<Duration>; 2], Stop> {
        let times = self.device.run_beside(first, second)?;
        self.look_round()?;
        Ok(times)
    }

    /// Does work while no other GPU of the run uses the way to the host. One that hangs on it is not waited for.
    pub(crate) fn in_lane<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, Stop>) -> Result<T, Stop> {
        let turn = self.lane.queue();
        let begin = Instant::now();
        while begin.elapsed() < LANE && !turn.wait(BATCH) {
            self.look_round()?;
        }
        work(self)
    }

    /// Does nothing for so long, but looks round.
    pub(crate) fn rest(&mut self, time: Duration) -> Result<(), Stop> {
        let end = self.pace.elapsed() + time;
        loop {
            let left = end.saturating_sub(self.pace.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            self.pace.rest(left.min(BATCH));
            self.look_round()?;
        }
    }

    /// Takes what the driver has said, and ends where that is wanted.
    pub(crate) fn look_round(&mut self) -> Result<(), Stop> {
        (self.tell)(Progress::Goes);
        let elapsed = self.pace.elapsed();
        for mut sample in self.watch.samples(elapsed) {
            sample.tflops = self.tflops;
            (self.tell)(Progress::Sampled(sample));
            self.samples.push(sample);
        }
        let xids = self.watch.xids(elapsed);
        let has_fallen = xids.iter().any(|xid| xid.number == FALLEN_OFF);
        self.xids.extend(xids);
        let fallen = has_fallen.then(|| "it has fallen off the bus".to_owned());
        if let Some(reason) = fallen.or_else(|| self.watch.lost()) {
            return Err(Stop::Device(DeviceError::Lost(reason)));
        }
        if self.samples.len() > MOST_SAMPLES {
            let mut keeps = false;
            self.samples.retain(|_| {
                keeps = !keeps;
                keeps
            });
        }
        if (self.is_cancelled)() {
            return Err(Stop::Cancelled);
        }
        Ok(())
    }

    /// Seconds since the run began.
    pub(crate) fn now(&self) -> f64 {
        self.pace.elapsed().as_secs_f64()
    }

    /// Something wrong that was seen now.
    pub(crate) fn corruption(&self, class: CorruptionClass) -> Corruption {
        Corruption {
            temperature_c: self.samples.last().and_then(|sample| sample.temperature_c),
            ..Corruption::new(class, self.now())
        }
    }

    /// What a march has found in a word.
    pub(crate) fn wrong_word(&self, class: CorruptionClass, error: &MarchError) -> Corruption {
        error.told_in(&self.corruption(class))
    }

    /// The fault that kernels shall plant.
    pub(crate) fn fault(&self) -> Fault {
        let planted = self.inject.iter().find_map(|inject| match inject {
            Inject::Compute(fault) => Some(*fault),
            _ => None,
        });
        planted.unwrap_or(Fault::NONE)
    }

    /// Bytes of the card as bytes of the device, at least `least`.
    pub(crate) fn scaled(&self, bytes: u64, least: u64) -> u64 {
        (bytes / self.device.scale().bytes).max(least)
    }

    /// Flips a bit of a byte of device memory.
    pub(crate) fn flip(&self, span: Span, at: u64, bit: u32) -> Result<(), Stop> {
        if at >= span.bytes {
            return Ok(());
        }
        let byte = span.block.part(span.offset + at, 1);
        let mut value = [0];
        self.device.read(byte, &mut value)?;
        self.device.write(byte, &[value[0] ^ 1 << (bit % 8)])?;
        Ok(())
    }

    /// Reads a whole span and blanks it: what isn't written again must not look right.
    pub(crate) fn take(&self, span: Span) -> Result<Vec<u8>, Stop> {
        let bytes = self.read(span)?;
        self.device.write(span, &vec![0; bytes.len()])?;
        Ok(bytes)
    }

    /// Reads a whole span.
    pub(crate) fn read(&self, span: Span) -> Result<Vec<u8>, Stop> {
        let mut bytes = vec![0; usize::try_from(span.bytes).unwrap_or_default()];
        self.device.read(span, &mut bytes)?;
        Ok(bytes)
    }
}

/// Memory of one phase, given back at its end however that comes.
pub(crate) struct Held<'a> {
    device: &'a dyn Device,
    blocks: RefCell<Vec<Block>>,
    hosts: RefCell<Vec<HostBlock>>,
}

impl<'a> Held<'a> {
    pub(crate) fn on(device: &'a dyn Device) -> Self {
        Self {
            device,
            blocks: RefCell::default(),
            hosts: RefCell::default(),
        }
    }

    pub(crate) fn block(&self, bytes: u64) -> Result<Block, DeviceError> {
        let block = self.device.allocate(bytes)?;
        self.blocks.borrow_mut().push(block);
        Ok(block)
    }

    /// A block of zeros, small.
    pub(crate) fn zeros(&self, bytes: u64) -> Result<Block, DeviceError> {
        let block = self.block(bytes)?;
        self.device
            .write(block.all(), &vec![0; usize::try_from(bytes).unwrap_or_default()])?;
        Ok(block)
    }

    pub(crate) fn host(&self, bytes: u64) -> Result<HostBlock, DeviceError> {
        let block = self.device.allocate_host(bytes)?;
        self.hosts.borrow_mut().push(block);
        Ok(block)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // A device that is lost has lost its memory too.
        for block in self.blocks.take() {
            let _: Result<(), DeviceError> = self.device.release(block);
        }
        for block in self.hosts.take() {
            let _: Result<(), DeviceError> = self.device.release_host(block);
        }
    }
}

/// Copies, so many, queued while the device is busy with something else, so that none waits for the host.
pub(crate) fn gated(work: Work, count: usize) -> Vec<Work> {
    let mut all = vec![Work::Spin { nanoseconds: 200_000 }];
    all.resize(count + 1, work);
    all
}

/// How many of a work that takes `each` make a batch.
pub(crate) fn batch_of(each: Duration, most: usize) -> usize {
    fill(BATCH, each, most)
}

/// How many of a work that takes `each` take so long together.
pub(crate) fn fill(time: Duration, each: Duration, most: usize) -> usize {
    let each = each.as_nanos().max(1);
    usize::try_from(time.as_nanos() / each)
        .unwrap_or(usize::MAX)
        .clamp(1, most.max(1))
}

/// What can run for a format, of all its variants or of one; and why others can't.
pub(crate) fn choices(device: &dyn Device, format: Format, only: Option<Variant>) -> Choices {
    let all = kernels::variants(format);
    let Some(only) = only else {
        // Kernels that are for other GPUs are no better ones that failed, as long as there are others.
        let capability = device.facts().compute_capability;
        let is_for_it = |variant: &Variant| {
            kernels::module(*variant, format, capability)
                .is_none_or(|module| module.target.includes(capability))
        };
        let own: Vec<Variant> = all.iter().copied().filter(is_for_it).collect();
        return device.choices(format, if own.is_empty() { all } else { &own });
    };
    let (wanted, others): (Vec<_>, Vec<_>) = all.iter().partition(|&&variant| variant == only);
    let mut choices = device.choices(format, &wanted);
    choices.refused.extend(others.into_iter().map(|variant| Refused {
        variant,
        reason: format!("only {only} was asked for"),
        was_wrong: false,
    }));
    choices
}
