//! `pitcrew gpus`: this machine's GPUs, or imaginary ones.

use pitcrew_cli::{ExitStatus, Format, GlobalArgs, GpusArgs, GpusCommand};
use pitcrew_core::Inventory;
use pitcrew_core::inventory::DriverReadings;

use super::catalog;
use crate::driver::{self, Seen};
use crate::error::Error;
use crate::output::Output;
use crate::view::report::{Report, Source};
use crate::{exit, pci, view};

#[cfg(feature = "sim")]
pub(crate) mod imaginary;
#[cfg(not(feature = "sim"))]
#[path = "gpus/no_simulator.rs"]
pub(crate) mod imaginary;

/// What is shown where there is no GPU: a card that many people have.
const INSTEAD: &str = "rtx3060";

pub(crate) fn run(args: GpusArgs, global: &GlobalArgs, output: &mut Output<'_>) -> Result<ExitStatus, Error> {
    let GpusArgs { command, scenario } = args;
    match (command, scenario.as_deref()) {
        (Some(GpusCommand::Catalog(args)), _) => catalog::run(&args, output),
        (None, Some("list")) => imaginary::list(output),
        (None, None) if !driver::is_to_be_asked(global)? => instead(global, output),
        (None, None) => machine(global, output),
        (None, Some(name)) => {
            let Seen { source, inventory } = driver::open(global, Some(name))?.look()?;
            show(&source, &inventory, output)
        }
    }
}

/// The GPUs of this machine. Where its driver doesn't answer, the bus still tells which there are.
fn machine(global: &GlobalArgs, output: &mut Output<'_>) -> Result<ExitStatus, Error> {
    let fault = match driver::open(global, None)?.look() {
        Ok(Seen { source, inventory }) => return show(&source, &inventory, output),
        Err(Error::Gpus(fault)) => fault,
        Err(error) => return Err(error),
    };
    let functions = pci::scan(&global.root)?;
    if !functions.is_empty() {
        let source = Source::Pci { pci: true };
        show(&source, &pci::inventory(&functions, &fault.to_string()), output)?;
        output.remark("")?;
    }
    Err(Error::Gpus(fault))
}

/// A machine without a GPU is shown an imaginary one, and that is said aloud.
fn instead(global: &GlobalArgs, output: &mut Output<'_>) -> Result<ExitStatus, Error> {
    let none = "no NVIDIA GPU on this machine";
    if !imaginary::AVAILABLE {
        output.remark(none)?;
        let nothing = Inventory {
            driver: DriverReadings::none_supported(),
            gpus: Vec::new(),
            links: Vec::new(),
            silent: Vec::new(),
        };
        return show(&Source::Pci { pci: true }, &nothing, output);
    }
    output.remark(&format!("{none}: showing the imaginary `{INSTEAD}` instead"))?;
    output.remark("hint: `pitcrew gpus --scenario list` shows other imaginary machines\n")?;
    let Seen { source, inventory } = driver::open(global, Some(INSTEAD))?.look()?;
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
