//! The checks, by topic; each is one small function.

mod cdi;
mod devices;
mod driver;
mod fabric;
mod firmware;
mod hardware;
mod kubernetes;
mod libraries;
mod others;
mod runtime;
mod security;
mod sharing;
mod support;
mod system;
mod template;

pub(crate) use kubernetes::name as distribution_name;
pub(crate) use support::misfit;

use crate::node::Node;
use crate::report::{Finding, Verdict};

/// One check. It may have nothing to say, or several things.
pub(crate) type Rule = fn(&Node<'_>) -> Vec<Finding>;

/// All checks, in the order of their topics.
pub(crate) fn all() -> impl Iterator<Item = Rule> {
    [
        hardware::RULES,
        driver::RULES,
        support::RULES,
        libraries::RULES,
        fabric::RULES,
        firmware::RULES,
        devices::RULES,
        system::RULES,
        security::RULES,
        kubernetes::RULES,
        runtime::RULES,
        template::RULES,
        cdi::RULES,
        others::RULES,
        sharing::RULES,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// What the user's template comes to, if there is one.
pub(crate) fn template_finding(node: &Node<'_>) -> Option<Finding> {
    template::RULES.iter().flat_map(|rule| rule(node)).next()
}

/// Title of the check that says that the container runtime will not come back after a restart.
pub(crate) fn trap(node: &Node<'_>) -> Option<&'static str> {
    let rules = template::RULES.iter().chain(kubernetes::TRAPS);
    let mut findings = rules.flat_map(|rule| rule(node));
    let trap = findings.find(|finding| finding.verdict == Verdict::Failure);
    trap.map(|finding| finding.title)
}

/// Runs one rule on a node, for tests.
#[cfg(test)]
pub(crate) fn one(host: &pitcrew_host::Host, id: &str) -> Finding {
    let report = crate::check(
        host,
        Err(&pitcrew_core::ports::GpuError::NoDriver("not asked".to_owned())),
    );
    let finding = report.finding(id).cloned();
    finding.unwrap_or_else(|| panic!("no finding `{id}` in {:?}", report.findings))
}
