//! What a start takes and what programs draw, on a real GPU.
//!
//! `draw start` tells how long each step of a start takes: driver, context, kernels, what the CPU computes. `draw power
//! [SECONDS]` lets each program that could draw most run for so long, and tells the mean draw by the driver's own energy
//! counter, and its power readings. `draw proof smoke|prove` proves the first GPU and tells when each phase ran.
#![expect(clippy::print_stdout, reason = "a program to be looked at")]
#![expect(unsafe_code, reason = "the management library is called here")]

use std::ffi::{c_int, c_uint, c_void};
use std::path::Path;
use std::process::ExitCode;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use libloading::os::unix::{Library as Handle, Symbol};
use pitcrew_core::proof::{Counters, Profile, Sample, XidEvent};
use pitcrew_prove::cuda::{Gpu, Library};
use pitcrew_prove::device::{
    Block, Choice, Device as _, Fault, Format, GEMM_RECORD_BYTES, Gemm, LOOP_RECORD_BYTES, Output, Work,
};
use pitcrew_prove::kernels::variants;
use pitcrew_prove::lane::Lane;
use pitcrew_prove::pace::Wall;
use pitcrew_prove::run::{Options, Place, run};
use pitcrew_prove::telemetry::Watch;
use pitcrew_prove::verify::golden::{GemmShape, loop_hashes};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const SIZE: u32 = 8192;
const GIB: u64 = 1 << 30;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let seconds = arguments.get(1).and_then(|text| text.parse().ok());
    let done = match arguments.first().map(String::as_str) {
        Some("start") => start(),
        Some("power") => power(seconds.unwrap_or(4.0)),
        Some("proof") if arguments.get(1).is_some_and(|name| name == "smoke") => proof(Profile::Smoke),
        Some("proof") => proof(Profile::Prove),
        _ => Err("usage: draw start | draw power [SECONDS]".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Says how long something took, and gives what it gave.
fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let since = Instant::now();
    let value = work();
    println!("{what:<44} {:8.1} ms", since.elapsed().as_secs_f64() * 1e3);
    value
}

fn start() -> Outcome<()> {
    let begin = Instant::now();
    timed("NVML: start and the first GPU", || Meter::open().map(drop))?;
    let library = Arc::new(timed("CUDA: load and cuInit", || {
        Library::open(None, Path::new("/dev"))
    })?);
    timed("CUDA: facts", || Gpu::facts_of(&library, 0))?;
    let gpu = timed("CUDA: context", || Gpu::open(&library, 0))?;
    let mut best = Vec::new();
    for &format in Format::ALL {
        for &variant in variants(format) {
            let choice = timed(&format!("self-test {variant} {format}"), || {
                gpu.choice(variant, format)
            });
            if let Ok(choice) = choice
                && best.last().is_none_or(|(known, _)| *known != format)
            {
                best.push((format, choice));
            }
        }
    }
    for (format, choice) in &best {
        timed(&format!("checksums {} {format}, CPU", choice.variant), || {
            shape(*format, choice).checksums()
        });
        timed(&format!("loop hashes {} {format}, CPU", choice.variant), || {
            loop_hashes(*format, &choice.loop_shape, 7, 1024)
        });
    }
    let free = gpu.free_memory()?;
    let block = timed("allocate most of the memory", || {
        gpu.allocate(free - free / 20 - (512 << 20))
    })?;
    timed("give it back", || gpu.release(block))?;
    let pinned = timed("pin 64 MiB", || gpu.allocate_host(64 << 20))?;
    timed("give it back", || gpu.release_host(pinned))?;
    timed("context: let go", || drop(gpu));
    println!("{:<44} {:8.1} ms", "all", begin.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

fn proof(profile: Profile) -> Outcome<()> {
    let begin = Instant::now();
    let library = Arc::new(Library::open(None, Path::new("/dev"))?);
    let gpu = Gpu::open(&library, 0)?;
    let mut watch = Meter::open()?;
    println!("{:6.2} s: the driver is there", begin.elapsed().as_secs_f64());
    let outcomes = run(
        Place {
            device: &gpu,
            pace: &Wall::since(begin),
            lane: &Lane::default(),
            watch: &mut watch,
            is_cancelled: &|| false,
            tell: &mut |_| {},
        },
        &Options {
            profile,
            time: None,
            variant: None,
            inject: Vec::new(),
            seed: 1,
        },
    );
    println!("{:6.2} s: all phases have ended", begin.elapsed().as_secs_f64());
    for phase in &outcomes.phases {
        let power = phase.power_w.unwrap_or_default();
        let rate = phase.rate.map_or(0.0, |rate| rate.p50);
        let (title, wrong) = (phase.title(), phase.corruption_count);
        println!(
            "{:6.2} s: {title:<16} {:6.2} s, {rate:8.1}, {power:6.1} W, {wrong} wrong, {:?}",
            phase.start_s, phase.seconds, phase.outcome
        );
    }
    let wrong = outcomes
        .phases
        .iter()
        .map(|phase| phase.corruption_count)
        .sum::<u64>();
    drop(gpu);
    println!("{:6.2} s: the driver is let go of", begin.elapsed().as_secs_f64());
    match outcomes.setup_error {
        Some(error) => Err(error.message.into()),
        None if wrong > 0 => Err(format!("{wrong} results were wrong").into()),
        None => Ok(()),
    }
}

impl Watch for Meter {
    fn counters(&mut self) -> Counters {
        Counters::default()
    }

    fn samples(&mut self, elapsed: Duration) -> Vec<Sample> {
        let sample = self.instant().map(|power| Sample {
            at_s: elapsed.as_secs_f64(),
            power_w: Some(power),
            ..Sample::default()
        });
        sample.into_iter().collect()
    }

    fn xids(&mut self, _elapsed: Duration) -> Vec<XidEvent> {
        Vec::new()
    }
}

fn shape(format: Format, choice: &Choice) -> GemmShape {
    GemmShape {
        format,
        m: SIZE,
        n: SIZE,
        k: SIZE,
        tile_rows: choice.tile_rows,
        tile_columns: choice.tile_columns,
        seed_a: 11,
        seed_b: 12,
        weight_seed: 13,
    }
}

/// What runs at the side of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    /// A triad over 1.5 GiB.
    Triad,
    /// A copy engine, device to host.
    Engine,
}

fn power(seconds: f64) -> Outcome<()> {
    let library = Arc::new(Library::open(None, Path::new("/dev"))?);
    let gpu = Gpu::open(&library, 0)?;
    let meter = Meter::open()?;
    println!(
        "{:<34} {:>9} {:>9} {:>9} {:>9} {:>6}",
        "program", "energy W", "median W", "highest", "TFLOP/s", "batch"
    );
    let short = Duration::from_millis(120);
    let long = Duration::from_millis(480);
    for (is_loop, format, beside, batch) in [
        (true, Format::Bf16, Beside::Nothing, short),
        (true, Format::Bf16, Beside::Nothing, long),
        (true, Format::Fp16, Beside::Nothing, long),
        (true, Format::Fp8, Beside::Nothing, long),
        (true, Format::Int8, Beside::Nothing, long),
        (true, Format::Tf32, Beside::Nothing, long),
        (true, Format::Fp64, Beside::Nothing, long),
        (true, Format::Fp32, Beside::Nothing, long),
        (false, Format::Bf16, Beside::Nothing, short),
        (false, Format::Bf16, Beside::Nothing, long),
        (false, Format::Bf16, Beside::Triad, short),
        (false, Format::Bf16, Beside::Triad, long),
        (true, Format::Bf16, Beside::Triad, long),
        (true, Format::Bf16, Beside::Engine, long),
        (false, Format::Bf16, Beside::Engine, long),
        (false, Format::Fp8, Beside::Nothing, long),
        (false, Format::Int8, Beside::Nothing, long),
        (false, Format::Tf32, Beside::Nothing, long),
    ] {
        program(&gpu, &meter, seconds, is_loop, format, beside, batch)?;
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "rates to three digits")]
#[expect(clippy::too_many_lines, reason = "one part after the other")]
fn program(
    gpu: &Gpu,
    meter: &Meter,
    seconds: f64,
    is_loop: bool,
    format: Format,
    beside: Beside,
    batch: Duration,
) -> Outcome<()> {
    let choices = gpu.choices(format, variants(format));
    let choice = choices.usable.first().ok_or("no kernel")?;
    let mut blocks = Vec::new();
    let mut block = |bytes| {
        let block = gpu.allocate(bytes)?;
        blocks.push(block);
        Ok::<_, Box<dyn std::error::Error>>(block)
    };
    let (work, operations) = if is_loop {
        let ctas = gpu.facts().sms * gpu.loop_ctas_per_sm(choice.variant, format).max(1);
        let records = block(u64::from(ctas) * LOOP_RECORD_BYTES)?.all();
        let work = Work::MmaLoop {
            variant: choice.variant,
            format,
            rounds: 1024,
            ctas,
            seed: 7,
            records,
            fault: Fault::NONE,
        };
        (work, choice.loop_shape.operations() * 1024 * u64::from(ctas))
    } else {
        let values = u64::from(SIZE) * u64::from(SIZE);
        let shape = shape(format, choice);
        let (down, across) = shape.grid();
        let a = block(values * format.operand_bytes())?.all();
        let b = block(values * format.operand_bytes())?.all();
        let fill = |to, seed| Work::Operands {
            to,
            format,
            rows: SIZE,
            k: SIZE,
            seed,
        };
        gpu.run(&[fill(a, 11), fill(b, 12)])?;
        let gemm = Gemm {
            variant: choice.variant,
            format,
            m: SIZE,
            n: SIZE,
            k: SIZE,
            a,
            b,
            c: block(values * Output::of(format).bytes())?.all(),
            records: block(u64::from(down) * u64::from(across) * GEMM_RECORD_BYTES)?.all(),
            weight_seed: 13,
            rotation: 0,
            ctas: 0,
            fault: Fault::NONE,
        };
        (Work::Gemm(gemm), 2 * u64::from(SIZE).pow(3))
    };
    let mut pinned = None;
    let side = match beside {
        Beside::Nothing => None,
        Beside::Triad => {
            let [a, b, c] = [block(GIB / 2)?, block(GIB / 2)?, block(GIB / 2)?].map(Block::all);
            let fill = |to, seed| Work::Operands {
                to,
                format: Format::Fp32,
                rows: 1 << 17,
                k: 1024,
                seed,
            };
            gpu.run(&[fill(b, 1), fill(c, 2)])?;
            Some(Work::Triad { a, b, c })
        }
        Beside::Engine => {
            let from = block(64 << 20)?.all();
            let to = gpu.allocate_host(64 << 20)?;
            pinned = Some(to);
            Some(Work::ToHost { from, to })
        }
    };
    let count_of = |work: Work| -> Outcome<usize> {
        let times = gpu.run(&[work, work])?;
        let one = times[1].as_secs_f64().max(1e-6);
        Ok((1_u32..100_000)
            .find(|&count| f64::from(count) * one >= batch.as_secs_f64())
            .map_or(100_000, |count| count as usize))
    };
    let main = vec![work; count_of(work)?];
    let side = match side {
        None => Vec::new(),
        Some(work) => vec![work; count_of(work)?],
    };
    let mut took = Duration::ZERO;
    let mut done = 0;
    let mut go = |time: f64| -> Outcome<()> {
        let since = Instant::now();
        while since.elapsed().as_secs_f64() < time {
            let times = if side.is_empty() {
                gpu.run(&main)?
            } else {
                let [times, _] = gpu.run_beside(&main, &side)?;
                times
            };
            took += times.iter().sum::<Duration>();
            done += times.len() as u64;
        }
        Ok(())
    };
    go(seconds / 3.0)?;
    let (result, draw) = meter.during(|| go(seconds))?;
    result?;
    let name = format!(
        "{} {} {format}{}",
        if is_loop { "loop" } else { "gemm" },
        choice.variant,
        match beside {
            Beside::Nothing => "",
            Beside::Triad => " + triad",
            Beside::Engine => " + copy engine",
        }
    );
    println!(
        "{name:<34} {:9.1} {:9.1} {:9.1} {:9.1} {:6}",
        draw.mean,
        draw.median,
        draw.highest,
        operations as f64 * done as f64 / took.as_secs_f64() / 1e12,
        batch.as_millis()
    );
    for block in blocks {
        gpu.release(block)?;
    }
    if let Some(pinned) = pinned {
        gpu.release_host(pinned)?;
    }
    Ok(())
}

/// What was drawn, in W.
struct Draw {
    mean: f64,
    median: f64,
    highest: f64,
}

/// The management library, for the first GPU.
struct Meter {
    handle: Handle,
    device: Raw,
}

#[derive(Debug, Clone, Copy)]
struct Raw(*mut c_void);

// SAFETY: a handle of a GPU may be used by any thread.
unsafe impl Send for Raw {}
// SAFETY: as above.
unsafe impl Sync for Raw {}

/// `nvmlFieldValue_t`.
#[repr(C)]
#[derive(Default)]
struct Field {
    id: c_uint,
    scope: c_uint,
    timestamp: i64,
    latency: i64,
    kind: c_uint,
    result: c_int,
    value: u64,
}

impl Meter {
    fn open() -> Outcome<Self> {
        // SAFETY: the driver's library; its functions have the types that `nvml.h` says.
        unsafe {
            let handle = Handle::new("libnvidia-ml.so.1")?;
            let init: Symbol<unsafe extern "C" fn() -> c_int> = handle.get(b"nvmlInit_v2")?;
            if init() != 0 {
                return Err("nvmlInit failed".into());
            }
            let get: Symbol<unsafe extern "C" fn(c_uint, *mut *mut c_void) -> c_int> =
                handle.get(b"nvmlDeviceGetHandleByIndex_v2")?;
            let mut device = ptr::null_mut();
            if get(0, &raw mut device) != 0 {
                return Err("no GPU".into());
            }
            Ok(Self {
                handle,
                device: Raw(device),
            })
        }
    }

    /// Since the driver was loaded, in mJ.
    fn energy(&self) -> Outcome<u64> {
        let mut energy = 0;
        // SAFETY: one number is written.
        unsafe {
            let get: Symbol<unsafe extern "C" fn(*mut c_void, *mut u64) -> c_int> =
                self.handle.get(b"nvmlDeviceGetTotalEnergyConsumption")?;
            if get(self.device.0, &raw mut energy) != 0 {
                return Err("no energy counter".into());
            }
        }
        Ok(energy)
    }

    /// The instant draw in W.
    fn instant(&self) -> Outcome<f64> {
        // `NVML_FI_DEV_POWER_INSTANT`.
        let mut field = Field {
            id: 186,
            ..Field::default()
        };
        // SAFETY: one value is read and written.
        unsafe {
            let get: Symbol<unsafe extern "C" fn(*mut c_void, c_int, *mut Field) -> c_int> =
                self.handle.get(b"nvmlDeviceGetFieldValues")?;
            if get(self.device.0, 1, &raw mut field) != 0 || field.result != 0 {
                return Err("no power reading".into());
            }
        }
        Ok(f64::from(u32::try_from(field.value & 0xFFFF_FFFF)?) / 1e3)
    }

    #[expect(clippy::cast_precision_loss, reason = "a few kJ")]
    fn during<T>(&self, work: impl FnOnce() -> T) -> Outcome<(T, Draw)> {
        let is_done = AtomicBool::new(false);
        let (value, samples, energy, took) = thread::scope(|scope| -> Outcome<_> {
            let thread = scope.spawn(|| {
                let mut samples = Vec::new();
                while !is_done.load(Ordering::Relaxed) {
                    samples.extend(self.instant());
                    thread::sleep(Duration::from_millis(100));
                }
                samples
            });
            let measured = self.energy().and_then(|before| {
                let since = Instant::now();
                let value = work();
                Ok((value, self.energy()? - before, since.elapsed()))
            });
            is_done.store(true, Ordering::Relaxed);
            let samples = thread.join().map_err(|_| "the sampler failed")?;
            let (value, energy, took) = measured?;
            Ok((value, samples, energy, took))
        })?;
        let mut sorted = samples;
        sorted.sort_by(f64::total_cmp);
        Ok((
            value,
            Draw {
                mean: energy as f64 / 1e3 / took.as_secs_f64(),
                median: sorted.get(sorted.len() / 2).copied().unwrap_or_default(),
                highest: sorted.last().copied().unwrap_or_default(),
            },
        ))
    }
}
