//! What the agent reads of a node before it changes it: its own list and state, bundles of containers, the driver's files.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pitcrew_agent::runtime::devices::{parse_capability, parse_information};
use pitcrew_agent::runtime::install::{parse_manifest, versions_in};
use pitcrew_agent::runtime::restart::parse_state;

fuzz_target!(|bytes: &[u8]| {
    for version in versions_in(bytes, Path::new("/opt/pitcrew")) {
        assert!(!version.is_empty() && !version.contains('/'));
    }
    if let Some(manifest) = parse_manifest(bytes) {
        for entry in manifest.entries() {
            assert!(entry.path.is_absolute() && !entry.path.iter().any(|part| part == ".."));
        }
        assert_eq!(parse_manifest(manifest.text().as_bytes()).map(|again| again.text()), Some(manifest.text()));
    }
    let state = parse_state(bytes);
    let text = serde_json::to_vec(&state).unwrap_or_default();
    assert_eq!(parse_state(&text), state);
    let text = String::from_utf8_lossy(bytes);
    let _minor = (parse_information(&text), parse_capability(&text));
});
