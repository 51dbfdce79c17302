//! What is wrong with the machine as a whole, one clear line each.

use std::time::Duration;

use super::figure::duration;
use super::look::Trouble;
use super::model::Model;

/// How long it is told that a driver was replaced.
const TOLD_FOR: Duration = Duration::from_mins(1);

/// One line, and whether it is bad or only worth knowing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) text: String,
    pub(crate) is_bad: bool,
}

fn bad(text: String) -> Notice {
    Notice { text, is_bad: true }
}

/// What is to be told at `now`; looks are expected each `interval`.
pub(crate) fn notices(model: &Model, now: Duration, interval: Duration) -> Vec<Notice> {
    let mut told = Vec::new();
    told.extend(silence(model, now, interval).map(bad));
    if let Some(replaced) = &model.replaced
        && now.saturating_sub(replaced.at) <= TOLD_FOR
    {
        told.push(Notice {
            text: format!(
                "driver {} was replaced by {}: reloaded",
                replaced.from, replaced.to
            ),
            is_bad: false,
        });
    }
    for gone in &model.gone {
        let since = duration(now.saturating_sub(gone.since));
        told.push(bad(format!(
            "GPU {} ({}, {}) is gone: the driver stopped listing it {since} ago",
            gone.index, gone.name, gone.address
        )));
    }
    for gpu in model.gpus() {
        if let Some(since) = model.lost_since(gpu) {
            let since = duration(now.saturating_sub(since));
            let what = if model.bus_only.contains(&gpu.pci.address) {
                let reason = gpu.readings.uuid.failure().unwrap_or_default();
                format!("was taken from the driver {since} ago: {reason}")
            } else {
                format!("is lost: it stopped answering {since} ago")
            };
            told.push(bad(format!("GPU {} ({}) {what}", gpu.index, model.name(gpu))));
        }
    }
    told
}

/// Why there is nothing new.
fn silence(model: &Model, now: Duration, interval: Duration) -> Option<String> {
    let since_look = now.saturating_sub(model.looked);
    let before = |model: &Model| match model.inventory {
        Some(_) => format!(
            "; showing what was read {} ago",
            duration(now.saturating_sub(model.taken))
        ),
        None => String::new(),
    };
    match &model.trouble {
        Some(Trouble::Silent { call, waited }) => {
            let time = duration(*waited + since_look);
            let call = call.as_ref().map_or(String::new(), |call| format!(": {call}"));
            let before = if model.inventory.is_some() {
                "; showing what was read before"
            } else {
                ""
            };
            Some(format!("the driver has not answered for {time}{call}{before}"))
        }
        Some(Trouble::Refused(error)) => Some(format!("{error}{}", before(model))),
        None if model.inventory.is_some() && since_look > interval * 2 + Duration::from_secs(1) => {
            Some(format!(
                "the driver has not answered for {}; showing what was read before",
                duration(since_look)
            ))
        }
        None => None,
    }
}
