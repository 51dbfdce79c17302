//! CDI specifications: any text is one, or is refused at a place that it has; what is taken survives being written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pitcrew_cdi::directories::{self, Refusal};
use pitcrew_cdi::text::{Encoding, encode, line, parse};
use pitcrew_cdi::{Kind, QualifiedName};

fuzz_target!(|bytes: &[u8]| {
    if let Err(Refusal::Invalid(problems)) = directories::parse(bytes) {
        assert!(!problems.is_empty());
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = line(text, "devices[0].containerEdits.env[1]");
    if let Ok(name) = text.parse::<QualifiedName>() {
        assert_eq!(name.to_string(), text);
    }
    if let Ok(kind) = text.parse::<Kind>() {
        assert_eq!(kind.to_string(), text);
    }
    let Ok(spec) = parse(text) else { return };
    let json = encode(&spec, Encoding::Json).expect("a specification is made of texts and numbers");
    assert_eq!(parse(&json).expect("what was written is read"), spec);
    if spec.check().is_ok() {
        let yaml = encode(&spec, Encoding::Yaml).expect("a specification is made of texts and numbers");
        assert_eq!(parse(&yaml).expect("what was written is read"), spec);
    }
});
