//! Specifications as text: JSON, or YAML, of which JSON is a part.

use std::path::Path;

use pitcrew_core::document::{self, Tree};
use serde::Serialize;

use crate::Spec;

/// How a specification is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `.json`
    Json,
    /// `.yaml`
    Yaml,
}

impl Encoding {
    /// The encoding that a file's name says. Container runtimes look at no other files.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "json" => Some(Self::Json),
            "yaml" => Some(Self::Yaml),
            _ => None,
        }
    }

    /// What the names of its files end in, without the dot.
    pub fn ending(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Yaml => "yaml",
        }
    }
}

/// A text that is no specification.
pub use pitcrew_core::document::SyntaxError as TextError;

/// A specification could not be written down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the specification can't be encoded: {0}")]
pub struct EncodeError(String);

/// Reads a specification, JSON or YAML. It is not yet checked: that is [`Spec::problems`].
///
/// # Errors
/// Where the text is neither, or has a field that no version of CDI knows, or one of another type.
pub fn parse(text: &str) -> Result<Spec, TextError> {
    let read: Result<Option<Spec>, _> = serde_saphyr::from_str(text);
    read?.ok_or_else(|| TextError {
        line: 1,
        column: 1,
        what: "there is nothing in it".to_owned(),
    })
}

/// Writes a specification down.
///
/// # Errors
/// Where a text in it can't be written, which no specification of a node has.
pub fn encode(spec: &Spec, encoding: Encoding) -> Result<String, EncodeError> {
    encode_any(spec, encoding)
}

fn encode_any(document: &impl Serialize, encoding: Encoding) -> Result<String, EncodeError> {
    match encoding {
        Encoding::Json => serde_json::to_string_pretty(document)
            .map(|text| text + "\n")
            .map_err(|error| EncodeError(error.to_string())),
        Encoding::Yaml => serde_saphyr::to_string(document).map_err(|error| EncodeError(error.to_string())),
    }
}

/// The line that a path such as `devices[0].name` is on, from 1; that of what it lies in, where it isn't there.
pub fn line(text: &str, path: &str) -> Option<u64> {
    let tree = document::parse(text).ok()?;
    let mut here = &tree;
    let mut line = here.referenced.line();
    for part in path.split(['.', '[']).filter(|part| !part.is_empty()) {
        let found = match (&here.value, part.strip_suffix(']')) {
            (Tree::List(items), Some(index)) => index.parse::<usize>().ok().and_then(|at| items.get(at)),
            (Tree::Map(entries), None) => {
                let entry = entries.iter().find(|(name, _)| name.value == part);
                // Where an entry's value is on the lines below, its name is what is looked for.
                line = entry.map_or(line, |(name, _)| name.referenced.line());
                here = match entry {
                    Some((_, value)) => value,
                    None => break,
                };
                continue;
            }
            _ => None,
        };
        match found {
            Some(item) => {
                here = item;
                line = here.referenced.line();
            }
            None => break,
        }
    }
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "\
cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
  - name: \"0\"
    containerEdits:
      deviceNodes:
        - path: /dev/nvidia0
          fileMode: 438
  - name: all
    containerEdits:
      env: [A=1, B]
";

    #[test]
    fn yaml_and_json_are_the_same_specification() {
        let spec = parse(YAML).unwrap();
        assert_eq!(
            spec.devices[0].container_edits.device_nodes[0].file_mode,
            Some(0o666)
        );
        for encoding in [Encoding::Json, Encoding::Yaml] {
            assert_eq!(parse(&encode(&spec, encoding).unwrap()).unwrap(), spec);
        }
        let nulls = parse("{cdiVersion: 0.5.0, kind: null, devices: null, containerEdits: null}").unwrap();
        assert_eq!(nulls.devices, []);
    }

    #[test]
    fn a_text_that_is_no_specification_is_refused_at_its_place() {
        let error = parse(&YAML.replace("fileMode", "filemode")).unwrap_err();
        assert_eq!(error.line, 8, "{error}");
        assert!(error.what.contains("filemode"), "{error}");
        let error = parse(&YAML.replace("438", "rw")).unwrap_err();
        assert_eq!(error.line, 8, "{error}");
        for text in [
            "",
            "- a",
            "{",
            "kind: [a]",
            "kind: a\nkind: b",
            "{\"devices\": 1}",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_path_is_found_in_the_text() {
        let at = |path: &str| line(YAML, path).unwrap();
        assert_eq!(at("kind"), 2);
        assert_eq!(at("devices"), 3);
        assert_eq!(at("devices[0].containerEdits.deviceNodes[0].path"), 7);
        assert_eq!(at("devices[0].containerEdits.deviceNodes[0].permissions"), 7);
        assert_eq!(at("devices[1].containerEdits.env[1]"), 11);
        assert_eq!(line("{", "kind"), None);
    }

    #[test]
    fn a_text_that_is_nested_without_end_has_no_lines_and_takes_no_stack() {
        let nested = format!("devices: {}{}", "[".repeat(60), "]".repeat(60));
        assert_eq!(line(&nested, "devices[0][0]"), None);
    }
}
