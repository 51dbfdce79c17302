//! A minute of chaos, in four seeds at once. `cargo xtask chaos` goes on for longer.
#![expect(
    clippy::print_stdout,
    clippy::panic,
    reason = "helpers of tests; clippy spares only the tests themselves"
)]

use std::time::Duration;

use pitcrew_sim::chaos::{self, Options};

/// Of each seed.
const LENGTH: Duration = Duration::from_secs(15);

fn chaos(seed: u64, scenario: &str) {
    let options = Options {
        seed,
        scenario: scenario.to_owned(),
        length: LENGTH,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.unwrap_or_else(|error| panic!("{error}"));
    let result = runtime.block_on(chaos::run(&options));
    runtime.shutdown_background();
    match result {
        Ok(report) => {
            println!("{report}");
            assert!(report.admitted > 0, "no pod was ever admitted: {report}");
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn one_small_card_survives_chaos() {
    chaos(1, "rtx3060");
}

#[test]
fn a_card_that_can_be_cut_survives_chaos() {
    chaos(2, "a30");
}

#[test]
fn eight_cards_survive_chaos() {
    chaos(3, "h100x8");
}

#[test]
fn four_different_cards_survive_chaos() {
    chaos(4, "mixed");
}
