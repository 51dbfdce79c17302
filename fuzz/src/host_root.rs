//! Host roots: whatever is in a manifest is a root or a refusal, and a root can be looked at.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pitcrew_core::ports::HostFs;
use pitcrew_scenario::HostRoot;

fuzz_target!(|text: &str| {
    let find = |name: &str| HostRoot::builtin_text(name).map(str::to_owned);
    let Ok(root) = HostRoot::parse(text, "fuzz.yaml", &find) else { return };
    let mut ahead = vec![Path::new("/").to_owned()];
    while let Some(path) = ahead.pop() {
        for name in root.list(&path).unwrap_or_default() {
            let path = path.join(name);
            let _ = (root.kind(&path), root.read(&path));
            if path.components().count() < 6 {
                ahead.push(path);
            }
        }
    }
});
