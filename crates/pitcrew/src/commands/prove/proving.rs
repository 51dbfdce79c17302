//! A proof from beginning to end: which GPUs, each on its own thread, what is told meanwhile, the report.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant, SystemTime};

use pitcrew_cli::{ExitStatus, GlobalArgs, ProveRunArgs, ProveVariant};
use pitcrew_core::proof::{
    self, DeviceEvidence, Driver, Evidence, PeerPath, Run, SetupError, SetupErrorCode, Thresholds, Timestamp,
    Tool,
};
use pitcrew_prove::device::Variant;
use pitcrew_prove::inject::Inject;
use pitcrew_prove::profile;
use pitcrew_prove::progress::Progress;
use pitcrew_prove::run::{Options, Outcomes};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::board::Board;
use super::place;
use super::prepared::{Prepared, Start, prepare};
use super::rack::{Ends, Target};
use crate::commands::gpus::imaginary as scenarios;
use crate::error::Error;
use crate::output::Output;

/// A GPU of which nothing was heard for so long hangs: it is longer than its own patience, and whatever takes the CPU
/// longer than a moment says so.
const SILENCE: Duration = Duration::from_secs(8);
/// But for the driver's compiler, which says nothing.
const COMPILING: Duration = Duration::from_secs(90);
/// What the end takes that is left out of the phases: last counters, the report, letting go of the driver, whose events
/// are waited for half a second at a time.
const END: Duration = Duration::from_millis(850);
/// What copies between GPUs take for each GPU besides: another context, buffers, and what arrived.
const PEER: Duration = Duration::from_millis(200);
/// Whoever stops a proof does not wait longer.
const FAREWELL: Duration = Duration::from_millis(900);
/// How often the line is drawn.
const DRAW: Duration = Duration::from_millis(150);

/// What became of one target.
type Proved = Result<Outcomes, SetupError>;

/// What the threads say.
enum Word {
    /// Of one target.
    Progress(usize, Progress),
    /// One target is done.
    Done(usize, Box<Proved>),
}

pub(super) fn run(
    args: &ProveRunArgs,
    global: &GlobalArgs,
    output: &mut Output<'_>,
) -> Result<ExitStatus, Error> {
    if args.scenario.as_deref() == Some("list") {
        return scenarios::list(output);
    }
    let options = options(args)?;
    // What is wrong with them must not show after a minute.
    let thresholds = match &args.thresholds {
        Some(path) => super::thresholds(path)?,
        None => Thresholds::default(),
    };
    let stop = stop_by_signals()?;
    let started = SystemTime::now();
    let begin = Instant::now();
    let mut evidence = Evidence {
        tool: Tool {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernels: Some(pitcrew_prove::kernels::digest()),
        },
        run: Run {
            profile: options.profile,
            started: Timestamp::of(started),
            seconds: 0.0,
            interrupted: None,
            scenario: None,
            injected: options.inject.iter().map(Inject::to_string).collect(),
            share: args.share,
        },
        node: place::node(args, global)?,
        driver: Driver::default(),
        setup_error: None,
        devices: Vec::new(),
        peers: Vec::new(),
    };
    let start = prepare(args, global, begin, &stop)?;
    match &start {
        Start::Failed(error) => evidence.setup_error = Some(error.clone()),
        Start::Stopped => {}
        Start::Ready(prepared) => {
            evidence.driver = prepared.driver.clone();
            evidence.run.scenario.clone_from(&prepared.scenario);
            prove(prepared, &options, &stop, &mut evidence, output)?;
        }
    }
    if stop.load(Ordering::Relaxed) {
        evidence.run.interrupted = Some("stopped by a signal".to_owned());
    }
    evidence.run.seconds = match evidence.run.scenario {
        None => begin.elapsed().as_secs_f64(),
        // The time of stand-ins is imaginary, too.
        Some(_) => imaginary_seconds(&evidence),
    };
    let report = proof::judge(evidence, &thresholds);
    // First, as who reads the output may be gone; and what is wrong with one doesn't keep the other back.
    let handed = super::hand_over(&report, &args.views, global);
    super::write(&report, &args.views, output)?;
    handed?;
    // Only now: to let go of the driver takes its time.
    drop(start);
    Ok(super::exit_status(report.verdict, args.strict))
}

/// When the last phase ended, by its own time.
fn imaginary_seconds(evidence: &Evidence) -> f64 {
    let phases = evidence.devices.iter().flat_map(|device| &device.phases);
    phases
        .map(|phase| phase.start_s + phase.seconds)
        .fold(0.0, f64::max)
}

/// The first signal ends the proof with what it has; a second one ends the program as it would any other.
fn stop_by_signals() -> Result<Arc<AtomicBool>, Error> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&stop)).map_err(Error::Signals)?;
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(Error::Signals)?;
    }
    Ok(stop)
}

fn options(args: &ProveRunArgs) -> Result<Options, Error> {
    let inject = args
        .inject
        .iter()
        .map(|text| text.parse::<Inject>())
        .collect::<Result<_, _>>()
        .map_err(Error::Inject)?;
    // Another one in each run, so that several runs test more than one does.
    let seed = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(1, |since| since.subsec_nanos());
    Ok(Options {
        profile: super::profile(args.profile),
        time: args.seconds.map(|seconds| Duration::from_secs(seconds.into())),
        variant: args.variant.map(|variant| match variant {
            ProveVariant::Simt => Variant::Simt,
            ProveVariant::M8n8k4 => Variant::M8n8k4,
            ProveVariant::M16n8k8 => Variant::M16n8k8,
            ProveVariant::M16n8k16 => Variant::M16n8k16,
            ProveVariant::Fp8 => Variant::Fp8Mma,
            ProveVariant::Wgmma => Variant::Wgmma,
            ProveVariant::Tcgen05 => Variant::Tcgen05,
        }),
        inject,
        seed,
    })
}

fn prove(
    prepared: &Prepared,
    options: &Options,
    stop: &Arc<AtomicBool>,
    evidence: &mut Evidence,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let targets = &prepared.targets;
    let total = options.time.unwrap_or(profile::usual(options.profile));
    let options = &with_time(prepared, options, total);
    let (words, heard) = mpsc::channel();
    let mut running = Vec::new();
    for (index, target) in targets.iter().enumerate() {
        if target.setup_error.is_none() {
            start(prepared, index, options, stop, &words)?;
            running.push(index);
        }
    }
    drop(words);
    let mut board = Board::new(targets, total);
    let mut results = listen(prepared, &heard, running, stop, &mut board, output)?;
    for (index, target) in targets.iter().enumerate() {
        let mut device = DeviceEvidence::new(target.device.clone());
        device.setup_error.clone_from(&target.setup_error);
        device.processes.clone_from(&target.processes);
        device.unread.clone_from(&target.unread);
        match results.iter().position(|(of, _)| *of == index) {
            None => {}
            Some(at) => match results.swap_remove(at).1 {
                Ok(outcomes) => {
                    device.setup_error = outcomes.setup_error;
                    device.before = outcomes.before;
                    device.after = outcomes.after;
                    device.xids = outcomes.xids;
                    device.samples = outcomes.samples;
                    device.phases = outcomes.phases;
                }
                Err(error) => device.setup_error = Some(error),
            },
        }
        evidence.devices.push(device);
    }
    evidence.peers = peers(prepared, options, stop, evidence, output)?;
    if !evidence.peers.is_empty() {
        // What happened on the way between GPUs counts, too.
        let after = prepared.rack.after(&prepared.targets);
        for (device, (counters, xids)) in evidence.devices.iter_mut().zip(after) {
            device.after = counters;
            device.xids.extend(xids);
        }
    }
    Ok(())
}

/// Of the whole time, what the phases of one GPU have: not the end, nor copies between GPUs. A stand-in's time is its own.
fn with_time(prepared: &Prepared, options: &Options, total: Duration) -> Options {
    let usable = prepared.targets.iter().filter(|target| is_peer(target)).count();
    let peers = match peer_time(options, usable) {
        Some((each, pairs)) => each * pairs + PEER * u32::try_from(usable).unwrap_or(1),
        None => Duration::ZERO,
    };
    let time = match prepared.scenario {
        Some(_) => options.time,
        // Many GPUs have many ways between them: then these come on top.
        None => Some(total.saturating_sub(END + peers).max(total / 2)),
    };
    Options {
        time,
        ..options.clone()
    }
}

/// MIG devices reach no other.
fn is_peer(target: &Target) -> bool {
    target.setup_error.is_none() && target.device.mig.is_none()
}

/// How long copies take in each direction of each pair of so many GPUs, and how many of these there are; none where
/// there is no pair.
fn peer_time(options: &Options, gpus: usize) -> Option<(Duration, u32)> {
    let directions = u32::try_from(gpus * gpus.saturating_sub(1)).ok()?;
    let whole = profile::peers(options.profile);
    let each = whole.checked_div(directions)?;
    Some((each.max(Duration::from_millis(100)), directions))
}

/// Proves one target on a thread of its own.
fn start(
    prepared: &Prepared,
    index: usize,
    options: &Options,
    stop: &Arc<AtomicBool>,
    words: &Sender<Word>,
) -> Result<(), Error> {
    let (rack, stop, words) = (Arc::clone(&prepared.rack), Arc::clone(stop), words.clone());
    let (target, options) = (prepared.targets[index].clone(), options.clone());
    let work = move || {
        // Who doesn't listen any more has gone without it.
        let mut tell = |progress| drop(words.send(Word::Progress(index, progress)));
        let ends = Ends {
            is_cancelled: &|| stop.load(Ordering::Relaxed),
            tell: &mut tell,
        };
        let result = rack.work(&target, &options, ends);
        let _ = words.send(Word::Done(index, Box::new(result)));
    };
    let name = format!("proof-{index}");
    let thread = std::thread::Builder::new().name(name).spawn(work);
    thread.map(drop).map_err(Error::NoThread)
}

/// Listens until all are done, or those that aren't are given up.
fn listen(
    prepared: &Prepared,
    heard: &Receiver<Word>,
    mut running: Vec<usize>,
    stop: &AtomicBool,
    board: &mut Board,
    output: &mut Output<'_>,
) -> Result<Vec<(usize, Proved)>, Error> {
    let mut results = Vec::new();
    let mut last_word = vec![Instant::now(); board.len()];
    let mut stopped: Option<Instant> = None;
    let mut drawn = Instant::now();
    while !running.is_empty() {
        match heard.recv_timeout(DRAW) {
            Ok(Word::Progress(index, progress)) => {
                last_word[index] = Instant::now();
                if let Some(line) = board.take(index, &progress) {
                    board.tell(&line, output)?;
                }
            }
            Ok(Word::Done(index, result)) => {
                running.retain(|of| *of != index);
                board.done(index);
                results.push((index, *result));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                let why = "the thread that worked with it has failed: this is a mistake in pitcrew";
                let error = |_| given_up(SetupErrorCode::Other, why.to_owned());
                give_up(&mut running, &mut results, |_| true, error);
            }
        }
        if drawn.elapsed() >= DRAW {
            drawn = Instant::now();
            board.draw(output)?;
        }
        if stop.load(Ordering::Relaxed) {
            let since = *stopped.get_or_insert_with(Instant::now);
            if since.elapsed() > FAREWELL {
                // It may load kernels or compute what must come out, neither of which stops: nothing is wrong with it.
                running.clear();
            }
        }
        let silence = if prepared.rack.is_compiling() {
            COMPILING
        } else {
            SILENCE
        };
        let is_silent = |index: usize| last_word[index].elapsed() > silence;
        let error = |index: usize| {
            let seconds = silence.as_secs();
            let why =
                format!("nothing was heard of it for {seconds} s: a call into the driver does not return");
            given_up(
                SetupErrorCode::Hang,
                match prepared.rack.last_xid(&prepared.targets[index]) {
                    Some(xid) => format!("{why}; the last XID was {xid}"),
                    None => why,
                },
            )
        };
        give_up(&mut running, &mut results, is_silent, error);
    }
    board.clear(output)?;
    Ok(results)
}

fn give_up(
    running: &mut Vec<usize>,
    results: &mut Vec<(usize, Proved)>,
    is_lost: impl Fn(usize) -> bool,
    error: impl Fn(usize) -> SetupError,
) {
    running.retain(|&index| {
        if is_lost(index) {
            results.push((index, Err(error(index))));
        }
        !is_lost(index)
    });
}

fn given_up(code: SetupErrorCode, message: String) -> SetupError {
    SetupError {
        code,
        message,
        fix: Some("`dmesg | grep -i xid` tells whether the driver saw it".to_owned()),
        cuda_error: None,
    }
}

/// Copies between the GPUs that can be used, once all are done with themselves.
fn peers(
    prepared: &Prepared,
    options: &Options,
    stop: &Arc<AtomicBool>,
    evidence: &Evidence,
    output: &mut Output<'_>,
) -> Result<Vec<PeerPath>, Error> {
    let usable: Vec<usize> = (0..evidence.devices.len())
        .filter(|&index| evidence.devices[index].setup_error.is_none() && is_peer(&prepared.targets[index]))
        .collect();
    let Some((time, pairs)) = peer_time(options, usable.len()) else {
        return Ok(Vec::new());
    };
    if stop.load(Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    output.remark(&format!(
        "copies between {} GPUs: {:.0} s",
        usable.len(),
        (time * pairs).as_secs_f64()
    ))?;
    let targets: Vec<Target> = usable
        .iter()
        .map(|&index| prepared.targets[index].clone())
        .collect();
    let (rack, of_thread) = (Arc::clone(&prepared.rack), Arc::clone(stop));
    let (done, result) = mpsc::channel();
    let work = move || {
        let paths = rack.peers(&targets, time, &|| of_thread.load(Ordering::Relaxed));
        let _ = done.send(paths);
    };
    let thread = std::thread::Builder::new()
        .name("proof-peers".to_owned())
        .spawn(work);
    thread.map(drop).map_err(Error::NoThread)?;
    // Contexts, buffers and comparisons come on top of the copies.
    let end = Instant::now() + time * pairs * 2 + PEER * pairs + SILENCE;
    let mut stopped: Option<Instant> = None;
    loop {
        match result.recv_timeout(DRAW) {
            Ok(Ok(mut paths)) => {
                for path in &mut paths {
                    (path.from, path.to) = (usable[path.from], usable[path.to]);
                }
                return Ok(paths);
            }
            Ok(Err(error)) => return Ok(untested(&usable, &failed(&error.message))),
            Err(RecvTimeoutError::Disconnected) => {
                return Ok(untested(&usable, &failed("the thread that copied has failed")));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        let is_stopped =
            stop.load(Ordering::Relaxed) && stopped.get_or_insert_with(Instant::now).elapsed() > FAREWELL;
        if is_stopped {
            return Ok(untested(&usable, &proof::Outcome::Interrupted));
        }
        if Instant::now() > end {
            return Ok(untested(&usable, &failed("they hang")));
        }
    }
}

fn failed(why: &str) -> proof::Outcome {
    proof::Outcome::Failed { why: why.to_owned() }
}

/// Paths that began and of which nothing is known.
fn untested(usable: &[usize], outcome: &proof::Outcome) -> Vec<PeerPath> {
    let pairs = usable
        .iter()
        .flat_map(|&from| usable.iter().map(move |&to| (from, to)));
    pairs
        .filter(|(from, to)| from != to)
        .map(|(from, to)| PeerPath {
            from,
            to,
            route: proof::PeerRoute::Unknown,
            outcome: outcome.clone(),
            rate: None,
            both_ways: None,
            verified_bytes: 0,
            corruption_count: 0,
            corruptions: Vec::new(),
        })
        .collect()
}
