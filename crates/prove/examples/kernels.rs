//! Every kernel on a real GPU: right, how fast, and whether a planted fault is found.
//!
//! `kernels [--seconds N] [--only PREFIX]...` runs each part in a process of its own, so that one that hangs or stops
//! the GPU's context does not take the others with it, and prints a line for each. Parts: `facts`, `memory`, and
//! `VARIANT:FORMAT`; `--only m16n8k16` runs all of that variant.
#![expect(clippy::print_stdout, reason = "a program to be looked at")]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use pitcrew_prove::cuda::{Gpu, Library};
use pitcrew_prove::device::{
    Choice, Device as _, Fault, Format, GEMM_RECORD_BYTES, Gemm, LOOP_RECORD_BYTES, MARCH_LOG_BYTES, Output,
    Pattern, RECOMPUTE_LOG_BYTES, Span, Variant, Work,
};
use pitcrew_prove::kernels::{self, variants};
use pitcrew_prove::verify::golden::{GemmShape, loop_hashes};
use pitcrew_prove::verify::records::{LoopRecord, gemm_records, loop_records, march_log, recompute_log};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const SIZE: u32 = 8192;

fn say(line: &str) {
    println!("{line}");
    let _ = std::io::stdout().flush();
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut seconds = 1.0;
    let mut only = Vec::new();
    let mut child = None;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let value = rest.next().cloned().unwrap_or_default();
        match argument.as_str() {
            "--seconds" => seconds = value.parse().unwrap_or(1.0),
            "--only" => only.push(value),
            "--child" => child = Some(value),
            _ => {
                say("usage: kernels [--seconds N] [--only PREFIX]...");
                return ExitCode::FAILURE;
            }
        }
    }
    if let Some(part) = child {
        return match run_part(&part, seconds) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                say(&format!("{part}: FAILED: {error}"));
                ExitCode::FAILURE
            }
        };
    }
    let mut failed = 0;
    for part in parts() {
        if !only.is_empty() && !only.iter().any(|prefix| part.starts_with(prefix.as_str())) {
            continue;
        }
        if !in_child(&part, seconds) {
            failed += 1;
        }
    }
    say(&format!("{failed} parts failed"));
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// All parts; those of the newest instructions last.
fn parts() -> Vec<String> {
    let mut parts = vec!["facts".to_owned(), "memory".to_owned()];
    for variant in Variant::ALL {
        for &format in Format::ALL {
            if variants(format).contains(&variant) {
                parts.push(format!("{variant}:{format}"));
            }
        }
    }
    parts
}

fn in_child(part: &str, seconds: f64) -> bool {
    let started = Instant::now();
    let limit = Duration::from_secs_f64(40.0 + 12.0 * seconds);
    let program = std::env::current_exe().unwrap_or_default();
    let spawned = Command::new(program)
        .args(["--child", part, "--seconds", &seconds.to_string()])
        .spawn();
    let Ok(mut child) = spawned else {
        say(&format!("{part}: FAILED: could not start"));
        return false;
    };
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) if started.elapsed() < limit => thread::sleep(Duration::from_millis(20)),
            _ => {
                say(&format!("{part}: FAILED: given up after {limit:?}"));
                let _ = child.kill();
                return false;
            }
        }
    }
}

fn run_part(part: &str, seconds: f64) -> Outcome<()> {
    let library = Arc::new(Library::open(None, Path::new("/dev"))?);
    let mut gpu = Gpu::open(&library, 0)?;
    gpu.set_ptx_alone(std::env::var_os("CUDA_FORCE_PTX_JIT").is_some_and(|value| value == "1"));
    match part {
        "facts" => {
            say(&format!("facts: {:?}, free {}", gpu.facts(), gpu.free_memory()?));
            Ok(())
        }
        "memory" => memory(&gpu, seconds),
        _ => {
            let (variant, format) = part.split_once(':').ok_or("VARIANT:FORMAT")?;
            let variant = Variant::ALL
                .into_iter()
                .find(|known| known.name() == variant)
                .ok_or("no such variant")?;
            let &format = Format::ALL
                .iter()
                .find(|known| known.name() == format)
                .ok_or("no such format")?;
            let capability = gpu.facts().compute_capability;
            let module = kernels::module(variant, format, capability);
            if !module.is_some_and(|module| module.target.includes(capability)) {
                say(&format!("{part}: not for compute capability {capability}"));
                return Ok(());
            }
            let since = Instant::now();
            let choice = gpu.choice(variant, format).map_err(|refused| refused.reason)?;
            say(&format!(
                "{part}: self-test ok, {:?}, {:.2} s",
                choice.source,
                since.elapsed().as_secs_f64()
            ));
            mma_loop(&gpu, format, &choice, seconds)?;
            gemm(&gpu, format, &choice, seconds)
        }
    }
}

fn sum(durations: &[Duration]) -> f64 {
    durations.iter().sum::<Duration>().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a small count"
)]
fn count_for(seconds: f64, one: f64, most: u32) -> u32 {
    ((seconds / one).ceil() as u32).clamp(1, most)
}

fn read_span(gpu: &Gpu, span: Span) -> Outcome<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(span.bytes)?];
    gpu.read(span, &mut bytes)?;
    Ok(bytes)
}

#[expect(clippy::cast_precision_loss, reason = "rates to three digits")]
fn mma_loop(gpu: &Gpu, format: Format, choice: &Choice, seconds: f64) -> Outcome<()> {
    let name = format!("loop:{}:{format}", choice.variant);
    let per_sm = gpu.loop_ctas_per_sm(choice.variant, format);
    let ctas = gpu.facts().sms * per_sm;
    let records = gpu.allocate(u64::from(ctas) * LOOP_RECORD_BYTES)?;
    let work = |rounds, fault| Work::MmaLoop {
        variant: choice.variant,
        format,
        rounds,
        ctas,
        seed: 77,
        records: records.all(),
        fault,
    };
    let one = sum(&gpu.run(&[work(64, Fault::NONE)])?) / 64.0;
    let rounds = count_for(seconds, one, 1 << 20);
    let took = sum(&gpu.run(&[work(rounds, Fault::NONE)])?);
    let got = loop_records(&read_span(gpu, records.all())?);
    let golden = loop_hashes(format, &choice.loop_shape, 77, rounds);
    let wrong = got
        .iter()
        .filter(|record| record.hashes[..golden.len()] != golden)
        .count();
    let sms: BTreeSet<u64> = got.iter().map(|record| record.sm).collect();
    let operations = choice.loop_shape.operations() as f64 * f64::from(rounds) * f64::from(ctas);
    let clock = median(got.iter().filter_map(LoopRecord::clock_mhz).collect());
    let cycles = got.iter().map(|record| record.cycles).max().unwrap_or(1) as f64;
    say(&format!(
        "{name}: {:.1} T/s, {:.0} per clock and SM at {clock:.0} MHz, {per_sm} CTAs/SM, {} SMs, {rounds} rounds, \
         {wrong} wrong",
        operations / took / 1e12,
        operations / cycles / f64::from(gpu.facts().sms),
        sms.len()
    ));
    let planted = Fault {
        sm: Some(1),
        place: Some(2),
        bit: Some(5),
    };
    gpu.run(&[work(2, planted)])?;
    let got = loop_records(&read_span(gpu, records.all())?);
    let golden = loop_hashes(format, &choice.loop_shape, 77, 2);
    let found = got.iter().all(|record| {
        (0..golden.len()).all(|warp| (record.hashes[warp] != golden[warp]) == (record.sm == 1 && warp == 2))
    });
    say(&format!(
        "{name}: fault in warp 2 of SM 1: {}",
        if found && got.iter().any(|record| record.sm == 1) {
            "found there alone"
        } else {
            "FAILED"
        }
    ));
    gpu.release(records)?;
    if wrong > 0 || !found {
        return Err("the loop gave wrong hashes".into());
    }
    Ok(())
}

#[expect(clippy::too_many_lines, reason = "one part after the other")]
fn gemm(gpu: &Gpu, format: Format, choice: &Choice, seconds: f64) -> Outcome<()> {
    let name = format!("gemm:{}:{format}", choice.variant);
    let shape = GemmShape {
        format,
        m: SIZE,
        n: SIZE,
        k: SIZE,
        tile_rows: choice.tile_rows,
        tile_columns: choice.tile_columns,
        seed_a: 11,
        seed_b: 12,
        weight_seed: 13,
    };
    let values = u64::from(SIZE) * u64::from(SIZE);
    let tiles = shape.grid().0 * shape.grid().1;
    let record_bytes = u64::from(tiles) * GEMM_RECORD_BYTES;
    let room = 2000_u32;
    let a = gpu.allocate(values * format.operand_bytes())?;
    let b = gpu.allocate(values * format.operand_bytes())?;
    let c = gpu.allocate(values * Output::of(format).bytes())?;
    let records = gpu.allocate(record_bytes * u64::from(room))?;
    let operands = |to, seed| Work::Operands {
        to,
        format,
        rows: SIZE,
        k: SIZE,
        seed,
    };
    gpu.run(&[operands(a.all(), 11), operands(b.all(), 12)])?;
    let one = |index: u32, fault| Gemm {
        variant: choice.variant,
        format,
        m: SIZE,
        n: SIZE,
        k: SIZE,
        a: a.all(),
        b: b.all(),
        c: c.all(),
        records: records.part(u64::from(index) * record_bytes, record_bytes),
        weight_seed: 13,
        rotation: index * 37,
        ctas: 0,
        fault,
    };
    let first = sum(&gpu.run(&[Work::Gemm(one(0, Fault::NONE))])?);
    let first = sum(&gpu.run(&[Work::Gemm(one(0, Fault::NONE))])?).min(first);
    let golden = shape.checksums();
    let count = count_for(seconds, first, room);
    let work: Vec<Work> = (0..count)
        .map(|index| Work::Gemm(one(index, Fault::NONE)))
        .collect();
    let mut rates = Vec::new();
    let (mut wrong, mut checked) = (0_u64, 0_u64);
    let mut sms = BTreeSet::new();
    for _ in 0..3 {
        let took = sum(&gpu.run(&work)?);
        rates.push(f64::from(count) * 2.0 * f64::from(SIZE).powi(3) / took / 1e12);
        for index in 0..count {
            let got = gemm_records(&read_span(gpu, one(index, Fault::NONE).records)?);
            sms.extend(got.iter().map(|record| record.sm));
            let bad = got
                .iter()
                .zip(&golden)
                .filter(|(got, golden)| got.checksum != **golden);
            wrong += bad.count() as u64;
            checked += u64::from(tiles);
        }
    }
    say(&format!(
        "{name}: {:.1} T/s (batches of {count}: {rates:.1?}), {} SMs, {checked} tiles checked, {wrong} wrong",
        median(rates.clone()),
        sms.len()
    ));
    // A fault: in every tile of one SM one value is wrong, and no other tile is.
    let sm = *sms.iter().nth(sms.len() / 3).ok_or("no SM")?;
    let fault = Fault {
        sm: Some(sm),
        place: None,
        bit: Some(20),
    };
    gpu.run(&[Work::Gemm(one(0, fault))])?;
    let got = gemm_records(&read_span(gpu, one(0, fault).records)?);
    let placed = got
        .iter()
        .zip(&golden)
        .all(|(got, golden)| (got.checksum != *golden) == (got.sm == sm));
    let log = gpu.allocate(RECOMPUTE_LOG_BYTES)?;
    let tile = got.iter().position(|record| record.sm == sm).unwrap_or_default();
    let took = gpu.run(&[Work::Recompute {
        gemm: one(0, fault),
        tile: u32::try_from(tile)?,
        tile_rows: choice.tile_rows,
        tile_columns: choice.tile_columns,
        avoid_sm: Some(sm),
        log: log.all(),
    }])?;
    let told = recompute_log(&read_span(gpu, log.all())?);
    let recomputed = told.checksum == golden[tile] && u64::from(told.sm) != u64::from(sm);
    say(&format!(
        "{name}: fault on SM {sm}: {}; tile {tile} recomputed in {:.1} ms: {}, {} values differ, {:?}",
        if placed { "found there alone" } else { "FAILED" },
        sum(&took) * 1e3,
        if recomputed { "as the CPU says" } else { "FAILED" },
        told.count,
        told.differences.first()
    ));
    for block in [a, b, c, records, log] {
        gpu.release(block)?;
    }
    if wrong > 0 || !placed || !recomputed || told.count != 1 {
        return Err("the GEMM or what finds its faults is wrong".into());
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "rates to three digits")]
#[expect(clippy::too_many_lines, reason = "one part after the other")]
fn memory(gpu: &Gpu, seconds: f64) -> Outcome<()> {
    let rate = |bytes: u64, took: f64| bytes as f64 / took / 1e9;
    let gib = 1_u64 << 30;
    let blocks = [
        gpu.allocate(4 * gib)?,
        gpu.allocate(4 * gib)?,
        gpu.allocate(4 * gib)?,
    ];
    let log = gpu.allocate(MARCH_LOG_BYTES)?;
    gpu.write(log.all(), &vec![0; usize::try_from(MARCH_LOG_BYTES)?])?;
    let fill = |index: usize, pattern| Work::March {
        span: blocks[index].all(),
        read: None,
        write: Some(pattern),
        descending: false,
        log: log.all(),
    };
    // Small integers as f32 would do as well; zeros are what no figure may be taken on.
    let fills: Vec<Work> = (0..3)
        .map(|index| fill(index, Pattern::Counter(index as u64)))
        .collect();
    gpu.run(&fills)?;
    for (name, work, bytes) in [
        (
            "copy",
            Work::Copy {
                from: blocks[0].all(),
                to: blocks[1].all(),
            },
            8 * gib,
        ),
        (
            "triad",
            Work::Triad {
                a: blocks[2].all(),
                b: blocks[0].all(),
                c: blocks[1].all(),
            },
            12 * gib,
        ),
    ] {
        let one = sum(&gpu.run(&[work])?);
        let batch = vec![work; count_for(seconds, one, 5000) as usize];
        let times = gpu.run(&batch)?;
        let middle = median(times.iter().map(Duration::as_secs_f64).collect());
        let worst = times.iter().max().map(Duration::as_secs_f64).unwrap_or_default();
        say(&format!(
            "{name}: {:.0} GB/s, worst {:.0}, {} times",
            rate(bytes, middle),
            rate(bytes, worst),
            times.len()
        ));
    }
    let pattern = Pattern::Counter(1);
    let steps = |read, write, descending| Work::March {
        span: blocks[1].all(),
        read,
        write,
        descending,
        log: log.all(),
    };
    let times = gpu.run(&[
        fill(1, pattern),
        steps(Some(pattern), Some(pattern.complement()), false),
        steps(
            Some(pattern.complement()),
            Some(Pattern::Constant(0x5555_5555_5555_5555)),
            true,
        ),
        steps(Some(Pattern::Constant(0x5555_5555_5555_5555)), None, false),
    ])?;
    let told = march_log(&read_span(gpu, log.all())?);
    say(&format!(
        "march: write {:.0} GB/s, read and write {:.0} up, {:.0} down, read {:.0}; {} errors",
        rate(4 * gib, times[0].as_secs_f64()),
        rate(8 * gib, times[1].as_secs_f64()),
        rate(8 * gib, times[2].as_secs_f64()),
        rate(4 * gib, times[3].as_secs_f64()),
        told.count
    ));
    let clean = told.count == 0;
    // A wrong word, planted.
    gpu.run(&[fill(1, pattern)])?;
    let at = 3 * gib + 8 * 12345;
    gpu.write(
        blocks[1].part(at, 8),
        &(pattern.word(at / 8) ^ 0x100).to_le_bytes(),
    )?;
    gpu.run(&[steps(Some(pattern), None, false)])?;
    let told = march_log(&read_span(gpu, log.all())?);
    let found = told.count == 1
        && told
            .errors
            .first()
            .is_some_and(|error| error.offset == at && error.got ^ error.expected == 0x100);
    say(&format!(
        "march: planted bit: {}: {:x?}",
        if found { "found there alone" } else { "FAILED" },
        told.errors.first()
    ));
    // L2: half of it, many times.
    let small = blocks[0].part(0, gpu.facts().l2_bytes / 2 / 4096 * 4096);
    let total = gpu.allocate(8)?;
    let work = Work::ReadCached {
        from: small,
        passes: 200,
        sum: total.all(),
    };
    gpu.run(&[work])?;
    let took = sum(&gpu.run(&[work])?);
    let mut bytes = [0; 8];
    gpu.read(total.all(), &mut bytes)?;
    let expected = (0..small.bytes / 8)
        .fold(0_u64, |sum, index| {
            sum.wrapping_add(Pattern::Counter(0).word(index))
        })
        .wrapping_mul(200);
    let right = u64::from_le_bytes(bytes) == expected;
    say(&format!(
        "L2: {:.0} GB/s of {} bytes, sum {}",
        rate(small.bytes * 200, took),
        small.bytes,
        if right { "right" } else { "FAILED" }
    ));
    let pinned = gpu.allocate_host(256 << 20)?;
    let down = Work::ToDevice {
        from: pinned,
        to: blocks[0].part(0, pinned.bytes),
    };
    let up = Work::ToHost {
        from: blocks[1].part(0, pinned.bytes),
        to: pinned,
    };
    let to_device = median(gpu.run(&[down; 8])?.iter().map(Duration::as_secs_f64).collect());
    let to_host = median(gpu.run(&[up; 8])?.iter().map(Duration::as_secs_f64).collect());
    let both = gpu.run_beside(&[down; 8], &[up; 8])?;
    let mut came = [0; 8];
    gpu.read_host(pinned, 8 * 4321, &mut came)?;
    let came = u64::from_le_bytes(came) == pattern.word(4321);
    say(&format!(
        "PCIe: to device {:.1} GB/s, to host {:.1}, both at once {:.1} + {:.1}; data {}",
        rate(pinned.bytes, to_device),
        rate(pinned.bytes, to_host),
        rate(8 * pinned.bytes, sum(&both[0])),
        rate(8 * pinned.bytes, sum(&both[1])),
        if came { "right" } else { "FAILED" }
    ));
    let since = Instant::now();
    let spun = sum(&gpu.run(&[Work::Spin {
        nanoseconds: 5_000_000,
    }])?);
    say(&format!(
        "spin: {:.2} ms of 5, {:.2} by the clock",
        spun * 1e3,
        since.elapsed().as_secs_f64() * 1e3
    ));
    gpu.release_host(pinned)?;
    if clean && found && right && came {
        Ok(())
    } else {
        Err("memory is not as it must be".into())
    }
}
