//! The command line of an OCI runtime, as far as the wrapper must understand it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// What is asked of the runtime.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Invocation {
    /// The bundle, where the command is `create`.
    pub create: Option<PathBuf>,
    /// The file of `--log`.
    pub log: Option<PathBuf>,
    /// Whether `--log-format` is JSON.
    pub json: bool,
}

/// Global options of runc and crun that take a value.
const WITH_VALUE: [&[u8]; 7] = [
    b"log",
    b"log-format",
    b"log-level",
    b"root",
    b"criu",
    b"rootless",
    b"cgroup-manager",
];

impl Invocation {
    /// Reads the words that follow the program's name. What it does not understand is the real runtime's to refuse.
    pub fn parse(words: &[OsString]) -> Self {
        let mut parsed = Self::default();
        let mut words = words.iter().map(OsString::as_os_str);
        let command = loop {
            let Some(word) = words.next() else { return parsed };
            let Some((name, value)) = option(word) else {
                break word;
            };
            let value = match value {
                Some(value) => value,
                None if WITH_VALUE.contains(&name) => words.next().unwrap_or_default(),
                None => continue,
            };
            match name {
                b"log" => parsed.log = Some(value.into()),
                b"log-format" => parsed.json = value == "json",
                _ => {}
            }
        };
        if command == "create" {
            let mut bundle = PathBuf::from(".");
            while let Some(word) = words.next() {
                match option(word) {
                    Some((b"bundle" | b"b", Some(value))) => bundle = value.into(),
                    Some((b"bundle" | b"b", None)) => bundle = words.next().unwrap_or_default().into(),
                    _ => {}
                }
            }
            parsed.create = Some(bundle);
        }
        parsed
    }
}

/// An option's name, and its value where it is in the same word.
fn option(word: &OsStr) -> Option<(&[u8], Option<&OsStr>)> {
    let word = word.as_bytes().strip_prefix(b"-")?;
    let word = word.strip_prefix(b"-").unwrap_or(word);
    let equals = word.iter().position(|&byte| byte == b'=');
    Some(equals.map_or((word, None), |at| {
        (&word[..at], Some(OsStr::from_bytes(&word[at + 1..])))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Invocation {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        Invocation::parse(&words)
    }

    #[test]
    fn the_bundle_is_found_as_containerd_writes_it() {
        let line = "--root /run/containerd/runc/k8s.io --log /b/log.json --log-format json --systemd-cgroup \
                    create --bundle /b --pid-file /b/init.pid --console-socket /s ID";
        let expected = Invocation {
            create: Some("/b".into()),
            log: Some("/b/log.json".into()),
            json: true,
        };
        assert_eq!(parse(line), expected);
        assert_eq!(
            parse("--log=/l --debug create -b=/c ID").create,
            Some("/c".into())
        );
        assert_eq!(parse("create --bundle").create, Some("".into()));
        assert_eq!(parse("create ID").create, Some(".".into()));
    }

    #[test]
    fn other_commands_and_values_that_look_like_create_are_not() {
        assert_eq!(parse("--root create delete --force create").create, None);
        assert_eq!(parse("exec create").create, None);
        assert_eq!(parse("--version").create, None);
        assert_eq!(parse(""), Invocation::default());
    }
}
