//! What an OCI runtime and a container's maker hand to the hooks and the wrapper: state, `config.json`, command lines.
//! Whatever is in them is read or refused, and an unprivileged container never names a GPU by its environment.
#![no_main]

use std::ffi::{OsStr, OsString};

use libfuzzer_sys::fuzz_target;
use pitcrew_hook::args::Call;
use pitcrew_hook::state::State;
use pitcrew_hook::wrapper::{Invocation, Name, Settings, requested};

fuzz_target!(|text: &str| {
    if let Ok(state) = State::parse(text.as_bytes()) {
        let _ = state.root_in(text.as_bytes());
    }
    let state = State { bundle: "/bundle".into(), root: None };
    if let Ok(root) = state.root_in(text.as_bytes()) {
        assert!(root.is_absolute());
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    let call: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
    if let Ok(call) = Call::parse(&call) {
        let _ = (call.value("mode"), call.values("link").count(), call.unknown(&["link"]));
    }
    let _ = Invocation::parse(&words.iter().map(OsString::from).collect::<Vec<_>>());
    if let Some(name) = Name::parse(text) {
        assert_eq!(name.to_string(), text);
    }
    if let Ok(config) = serde_json::from_str(text) {
        let open = Settings {
            accept_env_when_unprivileged: true,
            accept_volume_mounts: true,
            ..Settings::default()
        };
        let _ = requested(&config, &open);
        let unprivileged = !text.contains("SYS_ADMIN") && !text.contains("\\u");
        if let Ok(request) = requested(&config, &Settings::default()) {
            assert!(!(unprivileged && request.by_env));
        }
    }
});
