//! What the scout is answered by an API server, or whatever is in its place: it is an answer or none, and never longer
//! than what came.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pitcrew_scout::http;
use pitcrew_scout::labels::{Metadata, decide};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(response) = http::parse(bytes) {
        assert!(response.body.len() <= bytes.len());
        if let Ok(metadata) = serde_json::from_slice::<Metadata>(&response.body) {
            for has_gpu in [true, false] {
                let wanted = decide(has_gpu, &metadata).unwrap_or_default();
                assert!(has_gpu || wanted.is_empty());
            }
        }
    }
    if let Ok(metadata) = serde_json::from_slice::<Metadata>(bytes) {
        let _ = decide(true, &metadata);
    }
});
