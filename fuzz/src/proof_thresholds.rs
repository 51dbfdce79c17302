//! Thresholds of proofs as a person writes them: any text is some, or is refused with a reason; what is taken is within its
//! bounds, and is the same after it was written into a report.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pitcrew_core::proof::parse_thresholds;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let thresholds = match parse_thresholds(text) {
        Ok(thresholds) => thresholds,
        Err(refused) => {
            assert!(!refused.to_string().is_empty());
            return;
        }
    };
    for borders in [
        thresholds.pipe_efficiency,
        thresholds.tensor,
        thresholds.memory,
        thresholds.pcie,
        thresholds.nvlink,
    ] {
        assert!(borders.fail > 0.0 && borders.fail <= borders.warn && borders.warn <= 1.0);
    }
    let written = serde_json::to_string(&thresholds).expect("thresholds are texts and numbers");
    assert!(parse_thresholds(&written).expect("what was written is read") == thresholds);
});
