//! Chaos on imaginary nodes, for as long as one likes: `cargo xtask chaos` starts it.
//!
//! `chaos SECONDS [SEED [SCENARIO]]`: without a seed one after the other from 1 on, each for half a minute, on scenarios in
//! turn; with one that alone, all the time, and all that happened is shown.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use pitcrew_sim::chaos::{self, Options, Report, SCENARIOS};

/// How long a seed goes on where nobody asks for one.
const TURN: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Some(length) = words.first().and_then(|word| word.parse().ok()) else {
        eprintln!("usage: chaos SECONDS [SEED [SCENARIO]]");
        return ExitCode::from(64);
    };
    let length = Duration::from_secs(length);
    let seed: Option<u64> = words.get(1).and_then(|word| word.parse().ok());
    let scenario = words.get(2).cloned();
    let begun = Instant::now();
    for number in 1.. {
        let left = length.saturating_sub(begun.elapsed());
        if left.is_zero() {
            break;
        }
        let turn = seed.unwrap_or(number);
        let place = usize::try_from(turn).unwrap_or(0) % SCENARIOS.len();
        let options = Options {
            seed: turn,
            scenario: scenario.clone().unwrap_or_else(|| SCENARIOS[place].to_owned()),
            length: if seed.is_some() { left } else { left.min(TURN) },
        };
        match one(&options) {
            Ok(report) => {
                if seed.is_some() {
                    println!("{}", report.past.join("\n"));
                }
                println!("{report}");
            }
            Err(error) => {
                println!("{error}");
                return ExitCode::FAILURE;
            }
        }
        if seed.is_some() {
            break;
        }
    }
    ExitCode::SUCCESS
}

fn one(options: &Options) -> Result<Report, Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let result = runtime.block_on(chaos::run(options));
    runtime.shutdown_background();
    Ok(result?)
}
