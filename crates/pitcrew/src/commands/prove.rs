//! `pitcrew prove`: reports of tested GPUs, one or many.

mod board;
mod holders;
#[cfg(feature = "sim")]
mod imaginary;
#[cfg(not(feature = "sim"))]
#[path = "prove/no_simulator.rs"]
mod imaginary;
mod place;
mod prepared;
mod proving;
mod rack;
mod real;
mod watcher;

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::Path;

use pitcrew_cli::{
    ExitStatus, Format, GlobalArgs, ProofExit, ProveArgs, ProveCommand, ProveMergeArgs, ProveProfile,
    ProveShowArgs, ProveViewArgs,
};
use pitcrew_core::document::SyntaxError;
use pitcrew_core::proof::{
    self, MAX_BYTES, MAX_THRESHOLDS_BYTES, Profile, ReadError, Report, Thresholds, ThresholdsError, Verdict,
    fleet,
};

use crate::error::Error;
use crate::output::Output;
use crate::view::proof as view;

pub(crate) fn run(
    args: ProveArgs,
    global: &GlobalArgs,
    output: &mut Output<'_>,
) -> Result<ExitStatus, Error> {
    match args.command {
        None => proving::run(&args.run, global, output),
        Some(ProveCommand::Show(args)) => show(&args, global, output),
        Some(ProveCommand::Merge(args)) => merge(&args, output),
    }
}

fn show(args: &ProveShowArgs, global: &GlobalArgs, output: &mut Output<'_>) -> Result<ExitStatus, Error> {
    let mut report = read(&args.report)?;
    if let Some(path) = &args.thresholds {
        report = proof::judge(report.evidence, &thresholds(path)?);
    }
    hand_over(&report, &args.views, global)?;
    write(&report, &args.views, output)?;
    Ok(exit_status(report.verdict, args.strict))
}

/// Hands a report to this node's agent, where that was asked for.
pub(crate) fn hand_over(report: &Report, views: &ProveViewArgs, global: &GlobalArgs) -> Result<(), Error> {
    if views.hand_over {
        pitcrew_agent::proof::hand_over(&global.root, report).map_err(Error::HandOver)?;
    }
    Ok(())
}

/// Prints a report as it was asked for, and writes it to the files that were: to all of them, also where one can't be
/// written.
pub(crate) fn write(report: &Report, views: &ProveViewArgs, output: &mut Output<'_>) -> Result<(), Error> {
    let mut written = vec![match output.format() {
        Format::Table => output.text(&view::summary(report, output.width())),
        Format::Json | Format::Yaml => output.document(report),
    }];
    if let Some(path) = &views.html {
        written.push(put(path, &view::html::page(report)));
    }
    if let Some(path) = &views.junit {
        written.push(put(path, &view::junit::document(report)));
    }
    if let Some(path) = &views.prometheus {
        written.push(replace(path, &view::prometheus::text(report)));
    }
    if let Some(path) = &views.termination_log {
        written.push(put(path, &view::termination::message(report)));
    }
    written.into_iter().collect()
}

fn merge(args: &ProveMergeArgs, output: &mut Output<'_>) -> Result<ExitStatus, Error> {
    let reports: Vec<Report> = args
        .reports
        .iter()
        .map(|path| read(path))
        .collect::<Result<_, _>>()?;
    let fleet = fleet::compare(&reports);
    match output.format() {
        Format::Table => output.text(&view::fleet::summary(&fleet, output.width()))?,
        Format::Json | Format::Yaml => output.document(&fleet)?,
    }
    if let Some(path) = &args.html {
        put(path, &view::html::fleet_page(&fleet))?;
    }
    let is_fine = fleet.outliers.is_empty() && matches!(fleet.verdict, Verdict::Pass | Verdict::Warn);
    Ok(if is_fine {
        ExitStatus::Fine
    } else {
        ExitStatus::Finding
    })
}

/// A profile, as the command line has it.
pub(crate) const fn profile(wanted: ProveProfile) -> Profile {
    match wanted {
        ProveProfile::Smoke => Profile::Smoke,
        ProveProfile::Prove => Profile::Prove,
        ProveProfile::Burn => Profile::Burn,
        ProveProfile::Soak => Profile::Soak,
    }
}

/// The exit status of a verdict.
pub(crate) fn exit_status(verdict: Verdict, strict: bool) -> ExitStatus {
    match verdict {
        Verdict::Warn if strict => ExitStatus::Proof(ProofExit::StrictWarn),
        Verdict::Pass | Verdict::Warn => ExitStatus::Fine,
        Verdict::Interrupted => ExitStatus::Proof(ProofExit::Interrupted),
        Verdict::ErrorSetup => ExitStatus::Proof(ProofExit::Setup),
        Verdict::FailEnv => ExitStatus::Proof(ProofExit::Env),
        Verdict::FailPerf => ExitStatus::Proof(ProofExit::Perf),
        Verdict::FailHardware => ExitStatus::Proof(ProofExit::Hardware),
        Verdict::FailCorruption => ExitStatus::Proof(ProofExit::Corruption),
    }
}

/// Reads a report.
fn read(path: &Path) -> Result<Report, Error> {
    let refused = |source: ReadError| Error::NotReport {
        path: path.to_owned(),
        source,
    };
    let text = text(path, MAX_BYTES)?.map_err(|line| {
        refused(ReadError::Syntax {
            line,
            column: 0,
            what: "it is no text in UTF-8".to_owned(),
        })
    })?;
    proof::parse(&text).map_err(refused)
}

/// Reads thresholds, such as those of a mounted `ConfigMap`.
pub(crate) fn thresholds(path: &Path) -> Result<Thresholds, Error> {
    let refused = |source: ThresholdsError| Error::NotThresholds {
        path: path.to_owned(),
        source,
    };
    let text = text(path, MAX_THRESHOLDS_BYTES)?.map_err(|line| {
        refused(ThresholdsError::Syntax(SyntaxError {
            line: line.try_into().unwrap_or(u64::MAX),
            column: 0,
            what: "it is no text in UTF-8".to_owned(),
        }))
    })?;
    proof::parse_thresholds(&text).map_err(refused)
}

/// Reads a file or, for `-`, standard input: no more than can be what is wanted is taken into memory, which is what one
/// byte more is for. What is no text is the line up to which it is.
fn text(path: &Path, most: usize) -> Result<Result<String, usize>, Error> {
    let unread = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).map_err(unread)?)
    };
    let mut bytes = Vec::new();
    source
        .take(most as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(unread)?;
    Ok(String::from_utf8(bytes).map_err(|error| {
        let read = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        read.split(|&byte| byte == b'\n').count()
    }))
}

/// Writes in place: the file may be one that can't be replaced, such as `/dev/termination-log`.
fn put(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|source| Error::WriteFile {
        path: path.to_owned(),
        source,
    })
}

/// Writes beside it and renames: whoever collects metrics never reads half of them.
fn replace(path: &Path, text: &str) -> Result<(), Error> {
    let failed = |source| Error::WriteFile {
        path: path.to_owned(),
        source,
    };
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".pitcrew-")
        .tempfile_in(directory)
        .map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    readable_by_all(file.as_file()).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// A temporary file is its owner's alone, and a collector is somebody else.
fn readable_by_all(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_that_are_documented() {
        let codes = |strict| -> Vec<u8> {
            let code = |verdict: &Verdict| exit_status(*verdict, strict).code();
            Verdict::ALL.iter().map(code).collect()
        };
        assert_eq!(codes(false), [0, 0, 50, 40, 31, 30, 21, 20]);
        assert_eq!(codes(true), [0, 10, 50, 40, 31, 30, 21, 20]);
    }
}
