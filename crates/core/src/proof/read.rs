//! Reading reports that somebody else has written: with bounds, and a reason where one is refused.

use serde::Deserialize;

use super::{Report, SCHEMA};

/// Longest text that is read, in bytes. What [`judge`](super::judge) makes of eight GPUs over any time is a third of it.
pub const MAX_BYTES: usize = 64 << 20;

const MAX_DEVICES: usize = 256;
const MAX_PHASES: usize = 1_024;
const MAX_SAMPLES: usize = 1_000_000;
const MAX_CORRUPTIONS: usize = 1_000;
const MAX_SMS: usize = 4_096;
const MAX_LINKS: usize = 256;
const MAX_SPANS: usize = 65_536;
const MAX_REASONS: usize = 65_536;

/// A text that is no report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It is longer than any report.
    #[error("{bytes} bytes are more than a report has (at most {MAX_BYTES})")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It is no JSON, or not a report's.
    #[error("line {line}, column {column}: {what}")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// Column, from 1; 0 at the end of the line before.
        column: usize,
        /// What is wrong there.
        what: String,
    },
    /// It is another document, or a report of another version.
    #[error("its schema is `{found}`, and `{SCHEMA}` is read here")]
    Schema {
        /// What it says of itself.
        found: String,
    },
    /// A list is too long, or an index points nowhere.
    #[error("{what}")]
    Bounds {
        /// What is out of bounds.
        what: String,
    },
}

impl From<serde_json::Error> for ReadError {
    fn from(error: serde_json::Error) -> Self {
        let message = error.to_string();
        let what = message.split(" at line ").next().unwrap_or(&message);
        Self::Syntax {
            line: error.line().max(1),
            column: error.column(),
            what: what.to_owned(),
        }
    }
}

/// The report that a text is.
///
/// # Errors
/// Where it is too long, no JSON, no report of this version, or contradicts itself.
pub fn parse(text: &str) -> Result<Report, ReadError> {
    #[derive(Deserialize)]
    struct Head {
        #[serde(default)]
        schema: Option<String>,
    }
    if text.len() > MAX_BYTES {
        return Err(ReadError::TooLong { bytes: text.len() });
    }
    let (schema, report) = match serde_json::from_str::<Report>(text) {
        Ok(report) => (Some(report.schema.clone()), Ok(report)),
        // Of another document it is told that it is another one, not what it lacks.
        Err(error) => match serde_json::from_str::<Head>(text) {
            Ok(head) => (head.schema, Err(error)),
            Err(_) => return Err(error.into()),
        },
    };
    let schema = schema.unwrap_or_else(|| "none".to_owned());
    if schema != SCHEMA {
        let found = schema.chars().take(100).collect();
        return Err(ReadError::Schema { found });
    }
    let report = report?;
    check(&report)?;
    Ok(report)
}

fn check(report: &Report) -> Result<(), ReadError> {
    let evidence = &report.evidence;
    let judgement = &report.judgement;
    let devices = evidence.devices.len();
    at_most(devices, MAX_DEVICES, "devices")?;
    at_most(evidence.peers.len(), MAX_DEVICES * MAX_DEVICES, "peers")?;
    at_most(judgement.reasons.len(), MAX_REASONS, "reasons")?;
    at_most(judgement.actions.len(), MAX_REASONS, "actions")?;
    at_most(judgement.figures.len(), MAX_REASONS, "figures")?;
    at_most(judgement.thresholds.cards.len(), MAX_DEVICES, "cards")?;
    if judgement.verdicts.len() != devices {
        let what = format!("{} verdicts on {devices} devices", judgement.verdicts.len());
        return Err(ReadError::Bounds { what });
    }
    let peers = evidence.peers.iter().flat_map(|path| [path.from, path.to]);
    let reasons = judgement.reasons.iter().filter_map(|reason| reason.device);
    let figures = judgement.figures.iter().map(|figure| figure.device);
    if let Some(index) = peers
        .chain(reasons)
        .chain(figures)
        .find(|&index| index >= devices)
    {
        let what = format!("device {index} is named, and there are {devices}");
        return Err(ReadError::Bounds { what });
    }
    for path in &evidence.peers {
        at_most(path.corruptions.len(), MAX_CORRUPTIONS, "corruptions")?;
    }
    for device in &evidence.devices {
        at_most(device.phases.len(), MAX_PHASES, "phases")?;
        at_most(device.samples.len(), MAX_SAMPLES, "samples")?;
        for counters in [&device.before, &device.after] {
            at_most(counters.nvlinks.len(), MAX_LINKS, "nvlinks")?;
        }
        for phase in &device.phases {
            at_most(phase.corruptions.len(), MAX_CORRUPTIONS, "corruptions")?;
            at_most(phase.sms.len(), MAX_SMS, "sms")?;
            at_most(phase.spans.len(), MAX_SPANS, "spans")?;
        }
    }
    Ok(())
}

fn at_most(found: usize, most: usize, list: &str) -> Result<(), ReadError> {
    if found <= most {
        return Ok(());
    }
    let what = format!("{found} {list} in a list of at most {most}");
    Err(ReadError::Bounds { what })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{evidence, report};
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let report = report(evidence());
        let text = serde_json::to_string_pretty(&report).unwrap();
        assert!(parse(&text) == Ok(report));
    }

    #[test]
    fn another_document_and_another_version_are_named() {
        let refused = parse(r#"{"schema": "pitcrew.dev/proof/v2"}"#).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "its schema is `pitcrew.dev/proof/v2`, and `pitcrew.dev/proof/v1` is read here"
        );
        assert!(parse("{}").unwrap_err().to_string().contains("`none`"));
        assert!(matches!(parse("[1"), Err(ReadError::Syntax { line: 1, .. })));
        let deep = "[".repeat(100_000);
        assert!(matches!(parse(&deep), Err(ReadError::Syntax { .. })));
    }

    #[test]
    fn an_index_that_points_nowhere_is_refused() {
        let mut report = report(evidence());
        report.judgement.figures[0].device = 7;
        let text = serde_json::to_string(&report).unwrap();
        assert!(
            parse(&text)
                .unwrap_err()
                .to_string()
                .contains("device 7 is named")
        );
    }

    #[test]
    fn a_field_of_a_newer_version_is_passed_over() {
        let mut document = serde_json::to_value(report(evidence())).unwrap();
        document["evidence"]["devices"][0]["phases"][0]["new"] = serde_json::json!([1, 2]);
        assert!(parse(&document.to_string()).is_ok());
    }
}
