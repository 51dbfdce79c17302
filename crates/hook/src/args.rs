//! The hooks' command line, as CDI specifications of NVIDIA's toolkit write it.

use std::ffi::OsStr;

/// A hook and its options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The hook's name.
    pub hook: String,
    /// Its options in their order, without dashes.
    options: Vec<(String, String)>,
}

/// Why the command line says nothing that could be done.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ArgsError {
    /// No word that isn't an option.
    #[error("no hook is named; see --help")]
    NoHook,
    /// Not UTF-8, which no path in a CDI specification can be.
    #[error("the argument {0:?} is not UTF-8")]
    NotText(String),
    /// A word where an option was expected.
    #[error("`{hook}` takes no argument `{word}`")]
    Unexpected {
        /// The hook.
        hook: String,
        /// The word.
        word: String,
    },
    /// An option at the end of the line that needs a value.
    #[error("--{0} needs a value")]
    NoValue(String),
}

/// Options without a value, of the program and of the hooks.
const SWITCHES: [&str; 6] = ["debug", "quiet", "help", "h", "version", "v"];

impl Call {
    /// Reads the words that follow the program's name.
    pub fn parse(words: &[&OsStr]) -> Result<Self, ArgsError> {
        let mut words = words.iter().map(|word| {
            let text = word.to_str();
            text.ok_or_else(|| ArgsError::NotText(word.to_string_lossy().into_owned()))
        });
        let hook = loop {
            let word = words.next().ok_or(ArgsError::NoHook)??;
            if !word.starts_with('-') {
                break word.to_owned();
            }
        };
        let mut options = Vec::new();
        while let Some(word) = words.next() {
            let word = word?;
            let option = word.strip_prefix("--").or_else(|| word.strip_prefix('-'));
            let Some(option) = option.filter(|option| !option.is_empty()) else {
                let word = word.to_owned();
                return Err(ArgsError::Unexpected { hook, word });
            };
            if let Some((name, value)) = option.split_once('=') {
                options.push((name.to_owned(), value.to_owned()));
            } else if !SWITCHES.contains(&option) {
                let value = words
                    .next()
                    .ok_or_else(|| ArgsError::NoValue(option.to_owned()))??;
                options.push((option.to_owned(), value.to_owned()));
            }
        }
        Ok(Self { hook, options })
    }

    /// An option's last value that isn't empty.
    pub fn value(&self, name: &str) -> Option<&str> {
        let mut values = self.options.iter().rev().filter(|(option, _)| option == name);
        values.find_map(|(_, value)| (!value.is_empty()).then_some(value.as_str()))
    }

    /// All values of an option that may be repeated; commas separate values too, as in the reference.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let options = self.options.iter().filter(move |(option, _)| option == name);
        options.flat_map(|(_, value)| value.split(',').filter(|value| !value.is_empty()))
    }

    /// Options that none of these names.
    pub fn unknown(&self, known: &[&str]) -> Vec<&str> {
        let names = self.options.iter().map(|(name, _)| name.as_str());
        names
            .filter(|name| !known.contains(name) && *name != "container-spec")
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Call, ArgsError> {
        let words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
        Call::parse(&words)
    }

    #[test]
    fn both_forms_of_an_option_are_read_and_commas_separate_values() {
        let call = parse(&[
            "--debug",
            "update-ldcache",
            "--folder=/a,/b",
            "-folder",
            "/c",
            "--ldconfig-path",
            "@/x",
        ]);
        let call = call.unwrap();
        assert_eq!(call.hook, "update-ldcache");
        assert_eq!(call.values("folder").collect::<Vec<_>>(), ["/a", "/b", "/c"]);
        assert_eq!(call.value("ldconfig-path"), Some("@/x"));
        assert_eq!(call.unknown(&["folder"]), ["ldconfig-path"]);
    }

    #[test]
    fn what_can_not_be_read_is_told() {
        assert_eq!(parse(&["--quiet"]), Err(ArgsError::NoHook));
        assert_eq!(
            parse(&["chmod", "--mode"]),
            Err(ArgsError::NoValue("mode".to_owned()))
        );
        let unexpected = ArgsError::Unexpected {
            hook: "chmod".to_owned(),
            word: "755".to_owned(),
        };
        assert_eq!(parse(&["chmod", "755"]), Err(unexpected));
    }
}
