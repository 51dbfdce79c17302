//! `pitcrew check`: is this node ready for GPU pods?

use pitcrew_check::upgrade::{self, Effect, Target};
use pitcrew_check::{Outcome, check};
use pitcrew_cli::{CheckArgs, ExitStatus, Format, GlobalArgs};
use pitcrew_host::Host;

use crate::error::Error;
use crate::output::Output;
use crate::view::check::{self as view, Document, UpgradeDocument};

pub(super) mod facts;
#[cfg(feature = "sim")]
mod imaginary;
#[cfg(not(feature = "sim"))]
#[path = "check/no_simulator.rs"]
mod imaginary;
mod next_boot;

use facts::Node;

pub(crate) fn run(
    args: CheckArgs,
    global: &GlobalArgs,
    output: &mut Output<'_>,
) -> Result<ExitStatus, Error> {
    let CheckArgs {
        scenario,
        next_boot,
        to,
    } = args;
    if scenario.as_deref() == Some("list") {
        return super::gpus::imaginary::list(output);
    }
    // A target that can't be understood is told before a driver is woken.
    let target = match to.as_slice() {
        [] => None,
        words => Some(Target::parse(words).map_err(Error::Target)?),
    };
    let node = Node::open(scenario.as_deref(), global)?;
    let host = Host::gather(&*node.fs);
    match target {
        _ if next_boot => rehearse(&node, &host, output),
        Some(target) => show_upgrade(&node, &host, &target, output),
        None => show(&node, &host, output),
    }
}

fn rehearse(node: &Node<'_>, host: &Host, output: &mut Output<'_>) -> Result<ExitStatus, Error> {
    use next_boot::Containerd;
    let containerd = match &node.root {
        Some(root) => Containerd::Under(root),
        None => Containerd::Nobody("an imaginary node has no containerd that could be asked"),
    };
    next_boot::show(&node.source, host, &*node.fs, &containerd, output)
}

fn show(node: &Node<'_>, host: &Host, output: &mut Output<'_>) -> Result<ExitStatus, Error> {
    let gpus = node.gpus()?;
    let report = check(host, gpus.as_ref());
    match output.format() {
        Format::Table => output.text(&view::text(&node.source, &report, output.width()))?,
        Format::Json | Format::Yaml => output.document(&Document::new(&node.source, &report))?,
    }
    Ok(match report.outcome {
        Outcome::Ready | Outcome::ReadyWithRemarks => ExitStatus::Fine,
        Outcome::NotReady => ExitStatus::Finding,
        Outcome::CouldNotTell => ExitStatus::CouldNotTell,
    })
}

fn show_upgrade(
    node: &Node<'_>,
    host: &Host,
    target: &Target,
    output: &mut Output<'_>,
) -> Result<ExitStatus, Error> {
    let gpus = node.gpus()?;
    let plan = upgrade::plan(host, gpus.as_ref(), target);
    match output.format() {
        Format::Table => output.text(&view::upgrade(&node.source, &plan, output.width()))?,
        Format::Json | Format::Yaml => output.document(&UpgradeDocument::new(&node.source, &plan))?,
    }
    Ok(match plan.effect {
        Effect::Same | Effect::Changes => ExitStatus::Fine,
        Effect::Unknown => ExitStatus::CouldNotTell,
        Effect::Breaks => ExitStatus::Finding,
    })
}
