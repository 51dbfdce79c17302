//! `xtask fuzz`: coverage-guided fuzzing of the parsers of outside text, with libFuzzer on the stable compiler.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::process;

/// Options of `xtask fuzz`.
#[derive(clap::Args)]
pub(crate) struct FuzzArgs {
    /// Targets to run, by name; all by default
    targets: Vec<String>,
    /// Seconds for each target
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u32,
}

/// What `cargo-fuzz` would set on nightly: the compiler's own coverage pass, which libFuzzer reads.
const SANCOV: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions";

/// Builds all targets, then runs each on its committed corpus for a bounded time.
pub(crate) fn run(args: &FuzzArgs) -> Result<()> {
    let dir = crate::repository().join("fuzz");
    let target_dir = crate::cache_dir().join("fuzz");
    let host = process::output(process::cargo().args(["-vV"]))?;
    let host = host
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("cargo names no host")?
        .to_owned();
    // With `--target` the flags reach the fuzzed code alone, not build scripts.
    let mut build = process::cargo();
    build
        .current_dir(&dir)
        .env("RUSTFLAGS", SANCOV)
        .env("CARGO_TARGET_DIR", &target_dir);
    process::run(build.args(["build", "--release", "--bins", "--target", &host]))?;

    let mut names: Vec<String> = std::fs::read_dir(dir.join("src"))
        .context("could not list the fuzz targets")?
        .filter_map(|entry| {
            Path::new(&entry.ok()?.file_name())
                .file_stem()?
                .to_str()
                .map(str::to_owned)
        })
        .collect();
    names.sort();
    if let Some(unknown) = args.targets.iter().find(|target| !names.contains(target)) {
        bail!(
            "there is no fuzz target `{unknown}`; there are {}",
            names.join(", ")
        );
    }
    for name in names
        .iter()
        .filter(|name| args.targets.is_empty() || args.targets.contains(name))
    {
        let found = target_dir.join("found").join(name);
        std::fs::create_dir_all(&found).with_context(|| format!("could not create {}", found.display()))?;
        let mut fuzz = std::process::Command::new(target_dir.join(&host).join("release").join(name));
        // What is found goes to the cache; what is worth keeping is copied to the corpus by hand.
        fuzz.arg(&found)
            .arg(dir.join("corpus").join(name))
            .arg(format!("-max_total_time={}", args.seconds));
        fuzz.arg(format!("-artifact_prefix={}/crash-{name}-", target_dir.display()));
        eprintln!("fuzz: {name} for {} s", args.seconds);
        process::run(fuzz.args(["-max_len=4096", "-print_final_stats=1", "-verbosity=0"]))?;
    }
    Ok(())
}
