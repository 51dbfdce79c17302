//! The NVLinks of a GPU, a field for each: up or down, and what went wrong on it during the run.

use std::fmt::Write as _;

use pitcrew_core::proof::{DeviceEvidence, LinkState, Reason, ReasonCode};

use super::super::links;

/// Most links that are drawn; no GPU has as many.
const DRAWN: usize = 72;

/// `reasons`: those of this GPU. Links that are well count errors, too: what is too many was judged.
pub(super) fn strip<'a>(device: &DeviceEvidence, reasons: impl Iterator<Item = &'a Reason>) -> String {
    let after = &device.after.nvlinks;
    if after.is_empty() {
        return String::new();
    }
    let mut out = format!(
        "<h3>NVLinks</h3>\n<p class=\"muted\">{} up, each one way.</p>\n<ol class=\"links\">\n",
        links(device).unwrap_or_default()
    );
    let blamed: Vec<&str> = reasons
        .filter(|reason| reason.code == ReasonCode::NvLink)
        .map(|reason| reason.text.as_str())
        .collect();
    for link in after.iter().take(DRAWN) {
        let before = device
            .before
            .nvlinks
            .iter()
            .find(|before| before.index == link.index);
        let grown = before.map_or(0, |before| grown(before, link));
        let (tone, word) = match (link.up, grown) {
            (false, _) if before.is_some_and(|before| before.up) => ("bad", "went down".to_owned()),
            (false, _) => ("unrated", "down".to_owned()),
            (true, errors) => {
                let name = format!("NVLink {}:", link.index);
                if blamed.iter().any(|text| text.starts_with(&name)) {
                    ("low", format!("{errors} errors"))
                } else {
                    ("good", "up".to_owned())
                }
            }
        };
        let _ = writeln!(
            out,
            "<li class=\"{tone}\" title=\"{}\"><b>{}</b>{word}</li>",
            hint(link),
            link.index
        );
    }
    out.push_str("</ol>\n");
    out
}

fn grown(before: &LinkState, after: &LinkState) -> u64 {
    let errors = |link: &LinkState| link.errors().unwrap_or_default();
    errors(after).saturating_sub(errors(before))
}

/// All that is known of a link; what it doesn't count isn't told.
fn hint(link: &LinkState) -> String {
    let mut parts = vec![format!("NVLink {}", link.index)];
    parts.extend(link.speed_mbs.map(|speed| format!("{speed} MB/s")));
    for (what, told) in [
        ("wrong checksums in flits", link.crc_flit),
        ("wrong checksums in data", link.crc_data),
        ("packets sent again", link.replays),
        ("times brought up anew", link.recoveries),
    ] {
        parts.extend(told.map(|told| format!("{told} {what}")));
    }
    parts.join(", ")
}
