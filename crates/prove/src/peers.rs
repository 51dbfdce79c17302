//! Copies from GPU to GPU, each direction of each pair, with a comparison of what arrived.

use std::time::Duration;

use pitcrew_core::proof::{Corruption, CorruptionClass, Outcome, PeerPath, PeerRoute, Rate, Skip, Unit};

use crate::bench::{Held, MOST_CORRUPTIONS, batch_of, gated};
use crate::device::{Device, DeviceError, MARCH_LOG_BYTES, Pattern, Work};
use crate::pace::Pace;
use crate::verify::records::march_log;

/// Each buffer, of the card.
const BUFFER: u64 = 256 << 20;

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
    // Copies of one way, and of the other way at the same time: from a buffer that the first way doesn't write.
    let way = Work::ToPeer { from, to, peer };
    let (back_from, back_to) = (at_target.block(bytes)?.all(), at_source.block(bytes)?.all());
    target.run(&[march(back_from, None, Some(pattern), log)])?;
    source.run(&[march(back_to, None, Some(pattern.complement()), spare)])?;
    let back = Work::FromPeer {
        from: back_from,
        to: back_to,
        peer,
    };
    let one_way = |count: usize| -> Result<Duration, DeviceError> {
        Ok(source.run(&gated(way, count))?.iter().skip(1).sum())
    };
    let both_ways = |count: usize| -> Result<Duration, DeviceError> {
        let [there, _] = source.run_beside(&gated(way, count), &gated(back, count))?;
        Ok(there.iter().skip(1).sum())
    };
    let moved = bytes * source.scale().bytes;
    path.rate = rate(peers, time / 2, moved, &one_way)?;
    path.both_ways = rate(peers, time / 2, moved, &both_ways)?;
    source.run(&[march(back_to, Some(pattern), None, spare)])?;
    target.run(&[march(to, Some(pattern), None, log)])?;
    path.verified_bytes = 2 * bytes * scale;
    for (device, log) in [(target, log), (source, spare)] {
        let mut read = vec![0; usize::try_from(MARCH_LOG_BYTES).unwrap_or_default()];
        device.read(log, &mut read)?;
        let log = march_log(&read);
        path.corruption_count += log.count;
        let room = MOST_CORRUPTIONS.saturating_sub(path.corruptions.len());
        let found = Corruption::new(CorruptionClass::Transfer, peers.pace.elapsed().as_secs_f64());
        let errors = log.errors.iter().take(room);
        path.corruptions.extend(errors.map(|error| error.told_in(&found)));
    }
    if (peers.is_cancelled)() {
        path.outcome = Outcome::Interrupted;
    }
    Ok(())
}

/// Copies again and again, for so long; `copies` tells how long so many of them took, each of which moves `bytes`.
fn rate(
    peers: &Peers<'_>,
    time: Duration,
    bytes: u64,
    copies: &dyn Fn(usize) -> Result<Duration, DeviceError>,
) -> Result<Option<Rate>, DeviceError> {
    let start = peers.pace.elapsed();
    let (mut count, mut rates) = (1, Vec::new());
    while peers.pace.elapsed() < start + time && !(peers.is_cancelled)() && rates.len() < 1_000_000 {
        let took = copies(count)?;
        #[expect(clippy::cast_precision_loss, reason = "rates to a few figures")]
        let moved = (bytes * count as u64) as f64;
        if !took.is_zero() {
            rates.push(moved / took.as_secs_f64() / 1e9);
        }
        count = batch_of(took / u32::try_from(count).unwrap_or(1), 1024);
    }
    Ok(Rate::of(Unit::Gbs, rates))
}
