//! Names of resources.

use std::fmt;

/// The domain of all our resources.
pub const DOMAIN: &str = "nvidia.com/";
/// Most characters of a resource's name, the domain among them.
pub const LONGEST_NAME: usize = 63;

/// Names that GPUs and MIG devices get: `resources`. Of the rules that fit, the first counts; what none fits has the
/// usual name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NamingRules {
    /// For GPUs, by product name.
    pub gpus: Vec<NameRule>,
    /// For MIG devices, by profile.
    pub mig: Vec<NameRule>,
}

/// A name for what a pattern fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameRule {
    /// The pattern.
    pub pattern: Pattern,
    /// Full name of the resource.
    pub name: String,
}

/// The name that the first fitting rule gives.
pub(crate) fn named<'a>(rules: &'a [NameRule], text: &str) -> Option<&'a str> {
    let rule = rules.iter().find(|rule| rule.pattern.fits(text))?;
    Some(&rule.name)
}

/// A pattern for a whole text, in which each `*` stands for any characters or none: `*H100*`, `1g.*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Any text is a pattern.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// True where it fits the whole of `text`.
    pub fn fits(&self, text: &str) -> bool {
        let mut parts = self.0.split('*');
        let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
            return false;
        };
        let mut parts = parts.peekable();
        if parts.peek().is_none() {
            return rest.is_empty();
        }
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return rest.ends_with(part);
            }
            // The first place will do: what is left for the others is longest then.
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        true
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The full name of a resource: with our domain, where it has none.
///
/// # Errors
/// What is wrong with it, to follow its path: an empty name, another domain, more than [`LONGEST_NAME`] characters, one
/// that no name of Kubernetes may have.
pub fn resource_name(text: &str) -> Result<String, String> {
    let own = text.strip_prefix(DOMAIN).unwrap_or(text);
    if own.is_empty() {
        return Err("is no name: it is empty".to_owned());
    }
    if let Some((domain, _)) = own.split_once('/') {
        return Err(format!(
            "is `{text}`, of the domain `{domain}`: resources of GPUs are of `nvidia.com` alone"
        ));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = own.as_bytes();
    if !(bytes.iter().copied().all(plain) && ends(bytes.first()) && ends(bytes.last())) {
        return Err(format!(
            "is `{text}`, which Kubernetes refuses: a name has letters, digits, `-`, `_` and `.`, \
             and begins and ends with a letter or digit"
        ));
    }
    let full = format!("{DOMAIN}{own}");
    if full.len() > LONGEST_NAME {
        return Err(format!(
            "is `{full}`, which has {} characters with its domain: at most {LONGEST_NAME} are allowed",
            full.len()
        ));
    }
    Ok(full)
}
