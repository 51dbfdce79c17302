//! `pitcrew gpus`: this machine's GPUs, or imaginary ones.

use std::path::Path;

use pitcrew_cli::{ExitStatus, Format, GlobalArgs, GpusArgs, GpusCommand};
use pitcrew_core::Inventory;
use pitcrew_core::inventory::DriverReadings;

use super::catalog;
use crate::error::Error;
use crate::output::Output;
use crate::view::report::{Report, Source};
use crate::{exit, pci, view};

#[cfg(feature = "sim")]
mod imaginary;
#[cfg(not(feature = "sim"))]
#[path = "gpus/no_simulator.rs"]
mod imaginary;

/// What is shown where there is no GPU: a card that many people have.
const INSTEAD: &str = "rtx3060";
/// Why the driver's readings are absent.
const NOT_ASKED: &str = "this build can't ask the driver yet";

pub(crate) fn run(args: GpusArgs, global: &GlobalArgs, output: &mut Output<'_>) -> Result<ExitStatus, Error> {
    let GpusArgs { command, scenario } = args;
    match (command, scenario.as_deref()) {
        (Some(GpusCommand::Catalog(args)), _) => catalog::run(&args, output),
        (None, Some("list")) => imaginary::list(output),
        (None, Some(name)) => {
            let (source, inventory) = imaginary::inventory(name)?;
            show(&source, &inventory, output)
        }
        (None, None) => machine(&global.root, output),
    }
}

/// The GPUs of this machine; where there are none, an imaginary one, and that is said aloud.
fn machine(root: &Path, output: &mut Output<'_>) -> Result<ExitStatus, Error> {
    let functions = pci::scan(root)?;
    if functions.is_empty() {
        return instead(output);
    }
    let source = Source::Pci { pci: true };
    let status = show(&source, &pci::inventory(&functions, NOT_ASKED), output)?;
    output.remark(&format!(
        "\nhint: {NOT_ASKED}: `nvidia-smi` can, and `--scenario` shows imaginary GPUs in full"
    ))?;
    Ok(status)
}

fn instead(output: &mut Output<'_>) -> Result<ExitStatus, Error> {
    let none = "no NVIDIA GPU on this machine";
    if !imaginary::AVAILABLE {
        output.remark(none)?;
        let nothing = Inventory {
            driver: DriverReadings::none_supported(),
            gpus: Vec::new(),
            links: Vec::new(),
        };
        return show(&Source::Pci { pci: true }, &nothing, output);
    }
    output.remark(&format!("{none}: showing the imaginary `{INSTEAD}` instead"))?;
    output.remark("hint: `pitcrew gpus --scenario list` shows other imaginary machines\n")?;
    let (source, inventory) = imaginary::inventory(INSTEAD)?;
    show(&source, &inventory, output)
}

fn show(source: &Source, inventory: &Inventory, output: &mut Output<'_>) -> Result<ExitStatus, Error> {
    let report = Report::new(source, inventory);
    match output.format() {
        Format::Table => output.text(&view::gpus::text(&report, output.width()))?,
        Format::Json | Format::Yaml => output.document(&report)?,
    }
    match report.unread() {
        0 => {}
        1 => output.remark("1 value could not be read; `-o yaml` says which and why")?,
        count => output.remark(&format!(
            "{count} values could not be read; `-o yaml` says which and why"
        ))?,
    }
    Ok(exit::status(report.verdicts()))
}
