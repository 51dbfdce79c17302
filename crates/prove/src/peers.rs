//! Copies from GPU to GPU, each direction of each pair, with a comparison of what arrived.

use std::time::Duration;

use pitcrew_core::proof::{
    Bits, Corruption, CorruptionClass, Outcome, PeerPath, PeerRoute, Rate, Skip, Unit,
};

use crate::bench::{Held, batch_of};
use crate::device::{Device, DeviceError, MARCH_LOG_BYTES, Pattern, Work};
use crate::pace::Pace;
use crate::verify::records::march_log;

/// Each buffer, of the card.
const BUFFER: u64 = 256 << 20;
/// Copies are queued while the device is busy with this.
const GATE: Work = Work::Spin { nanoseconds: 200_000 };
/// Wrong words of one direction that are told one by one.
const MOST: usize = 1000;

/// Where peers are tested.
pub struct Peers<'a> {
    /// The GPUs, in the order of the report.
    pub devices: &'a [&'a dyn Device],
    /// Time of the run.
    pub pace: &'a dyn Pace,
    /// True from when on it shall end.
    pub is_cancelled: &'a dyn Fn() -> bool,
    /// The way between two of them, as the driver tells it.
    pub route: &'a dyn Fn(usize, usize) -> PeerRoute,
}

/// Copies between all GPUs, for about so long in each direction.
pub fn run(peers: &Peers<'_>, time: Duration) -> Vec<PeerPath> {
    let mut paths = Vec::new();
    for from in 0..peers.devices.len() {
        for to in 0..peers.devices.len() {
            if from != to {
                paths.push(path(peers, from, to, time));
            }
        }
    }
    paths
}

fn path(peers: &Peers<'_>, from: usize, to: usize, time: Duration) -> PeerPath {
    let mut path = PeerPath {
        from,
        to,
        route: (peers.route)(from, to),
        outcome: Outcome::Ran,
        rate: None,
        both_ways: None,
        verified_bytes: 0,
        corruption_count: 0,
        corruptions: Vec::new(),
    };
    if (peers.is_cancelled)() {
        path.outcome = Outcome::Interrupted;
        return path;
    }
    match copy(peers, &mut path, time) {
        Ok(()) => {}
        Err(DeviceError::Unsupported(why)) => {
            path.route = PeerRoute::Host;
            path.outcome = Outcome::Skipped {
                skip: Skip::Unsupported,
                why,
            };
        }
        Err(error @ DeviceError::OutOfMemory { .. }) => {
            path.outcome = Outcome::Skipped {
                skip: Skip::NotTested,
                why: error.to_string(),
            };
        }
        Err(error) => {
            path.outcome = Outcome::Failed {
                why: error.to_string(),
            };
        }
    }
    path
}

fn copy(peers: &Peers<'_>, path: &mut PeerPath, time: Duration) -> Result<(), DeviceError> {
    let (source, target) = (peers.devices[path.from], peers.devices[path.to]);
    let peer = source.reach(target.facts())?;
    let (at_source, at_target) = (Held::on(source), Held::on(target));
    let scale = source.scale().bytes.max(target.scale().bytes);
    let bytes = (BUFFER / scale).max(4096) / 4096 * 4096;
    let (from, to) = (at_source.block(bytes)?.all(), at_target.block(bytes)?.all());
    let (log, spare) = (
        at_target.zeros(MARCH_LOG_BYTES)?.all(),
        at_source.zeros(MARCH_LOG_BYTES)?.all(),
    );
    // Another pattern for each direction, so that what the other one left is not taken for it.
    let pattern = Pattern::Counter(((path.from as u64) << 32) + path.to as u64 + 1);
    let march = |span, read, write, log| Work::March {
        span,
        read,
        write,
        descending: false,
        log,
    };
    source.run(&[march(from, None, Some(pattern), spare)])?;
    target.run(&[march(to, None, Some(pattern.complement()), log)])?;
    let work = Work::ToPeer { from, to, peer };
    let start = peers.pace.elapsed();
    let (mut count, mut rates) = (1, Vec::new());
    while peers.pace.elapsed() < start + time && !(peers.is_cancelled)() {
        let mut all = vec![GATE];
        all.resize(count + 1, work);
        let took: Duration = source.run(&all)?.iter().skip(1).sum();
        #[expect(clippy::cast_precision_loss, reason = "rates to a few figures")]
        let moved = (bytes * source.scale().bytes * count as u64) as f64;
        if !took.is_zero() {
            rates.push(moved / took.as_secs_f64() / 1e9);
        }
        count = batch_of(took / u32::try_from(count).unwrap_or(1), 1024);
        if rates.len() > 1_000_000 {
            break;
        }
    }
    path.rate = Rate::of(Unit::Gbs, rates);
    target.run(&[march(to, Some(pattern), None, log)])?;
    let mut read = vec![0; usize::try_from(MARCH_LOG_BYTES).unwrap_or_default()];
    target.read(log, &mut read)?;
    let log = march_log(&read);
    path.verified_bytes = bytes * scale;
    path.corruption_count = log.count;
    path.corruptions = log
        .errors
        .iter()
        .take(MOST)
        .map(|error| Corruption {
            offset: Some(error.offset),
            expected: Some(Bits(error.expected)),
            got: Some(Bits(error.got)),
            second_read: Some(Bits(error.second)),
            ..Corruption::new(CorruptionClass::Transfer, peers.pace.elapsed().as_secs_f64())
        })
        .collect();
    if (peers.is_cancelled)() {
        path.outcome = Outcome::Interrupted;
    }
    Ok(())
}
