//! Reports of proofs that somebody else has written: any text is one, or is refused with a reason; what is taken survives
//! being written, can be judged anew and compared, and no index in it points nowhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pitcrew_core::proof::{Thresholds, fleet, judge, parse};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(report) = parse(text) else { return };
    let written = serde_json::to_string(&report).expect("a report is made of texts and numbers");
    let again = parse(&written).expect("what was written is read");
    assert!(again == report);
    let judged = judge(report.evidence.clone(), &Thresholds::default());
    assert_eq!(judged.judgement.verdicts.len(), report.evidence.devices.len());
    assert!(judged.judgement.verdicts.iter().all(|verdict| *verdict <= judged.verdict));
    let devices = judged.evidence.devices.len();
    assert!(judged.judgement.reasons.iter().all(|reason| reason.device.is_none_or(|index| index < devices)));
    let fleet = fleet::compare(&[report, judged, again]);
    assert!(fleet.outliers.iter().all(|outlier| outlier.member < fleet.members.len()));
});
