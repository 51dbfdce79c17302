//! Label and field selectors: read, printed, matched.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

/// A selector that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unable to parse requirement {text:?}: {why}")]
pub struct SelectorError {
    text: String,
    why: &'static str,
}

/// What a label must be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Exists,
    Absent,
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Greater(i64),
    Less(i64),
}

/// A label selector: `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<(String, Test)>,
}

impl LabelSelector {
    /// Whether these labels match.
    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        self.requirements.iter().all(|(key, test)| {
            let value = labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
            match test {
                Test::Exists => value.is_some(),
                Test::Absent => value.is_none(),
                Test::In(set) => value.is_some_and(|value| set.contains(value)),
                Test::NotIn(set) => value.is_none_or(|value| !set.contains(value)),
                Test::Greater(than) => number(value).is_some_and(|value| value > *than),
                Test::Less(than) => number(value).is_some_and(|value| value < *than),
            }
        })
    }

    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }
}

fn number(value: Option<&str>) -> Option<i64> {
    value?.parse().ok()
}

impl FromStr for LabelSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for part in split(text) {
            requirements.push(requirement(part.trim()).map_err(|why| SelectorError {
                text: part.trim().to_owned(),
                why,
            })?);
        }
        Ok(Self { requirements })
    }
}

/// Parts between commas that stand outside parentheses; none in blank text.
fn split(text: &str) -> Vec<&str> {
    if text.trim().is_empty() {
        return Vec::new();
    }
    let mut depth = 0_usize;
    text.split(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

fn requirement(part: &str) -> Result<(String, Test), &'static str> {
    if let Some(key) = part.strip_prefix('!') {
        return Ok((label_key(key)?, Test::Absent));
    }
    if let Some((head, list)) = part.split_once('(') {
        let list = list.strip_suffix(')').ok_or("a parenthesis is not closed")?;
        let values: BTreeSet<String> = list
            .split(',')
            .map(|value| label_value(value))
            .collect::<Result<_, _>>()?;
        let mut words = head.split_whitespace();
        return match (words.next(), words.next(), words.next()) {
            (Some(key), Some("in"), None) => Ok((label_key(key)?, Test::In(values))),
            (Some(key), Some("notin"), None) => Ok((label_key(key)?, Test::NotIn(values))),
            _ => Err("expected a key, and `in` or `notin`"),
        };
    }
    if let Some((key, value)) = part.split_once("!=") {
        return Ok((
            label_key(key)?,
            Test::NotIn(BTreeSet::from([label_value(value)?])),
        ));
    }
    if let Some((key, value)) = part.split_once('=') {
        let value = label_value(value.strip_prefix('=').unwrap_or(value))?;
        return Ok((label_key(key)?, Test::In(BTreeSet::from([value]))));
    }
    let than = |value: &str| value.trim().parse().map_err(|_| "expected a whole number");
    if let Some((key, value)) = part.split_once('>') {
        return Ok((label_key(key)?, Test::Greater(than(value)?)));
    }
    if let Some((key, value)) = part.split_once('<') {
        return Ok((label_key(key)?, Test::Less(than(value)?)));
    }
    Ok((label_key(part)?, Test::Exists))
}

fn label_key(text: &str) -> Result<String, &'static str> {
    let key = text.trim();
    let (prefix, name) = key
        .rsplit_once('/')
        .map_or((None, key), |(prefix, name)| (Some(prefix), name));
    if !is_label_part(name) || prefix.is_some_and(|prefix| !crate::names::is_dns_subdomain(prefix)) {
        return Err("the key is not a label's name");
    }
    Ok(key.to_owned())
}

fn label_value(text: &str) -> Result<String, &'static str> {
    let value = text.trim();
    if value.is_empty() || is_label_part(value) {
        Ok(value.to_owned())
    } else {
        Err("the value is not a label's value")
    }
}

/// At most 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends.
pub(crate) fn is_label_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    bytes.len() <= 63
        && ends.iter().all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, test)) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            let list = |set: &BTreeSet<String>| set.iter().map(String::as_str).collect::<Vec<_>>().join(",");
            match test {
                Test::Exists => write!(f, "{key}")?,
                Test::Absent => write!(f, "!{key}")?,
                Test::In(set) => write!(f, "{key} in ({})", list(set))?,
                Test::NotIn(set) => write!(f, "{key} notin ({})", list(set))?,
                Test::Greater(than) => write!(f, "{key}>{than}")?,
                Test::Less(than) => write!(f, "{key}<{than}")?,
            }
        }
        Ok(())
    }
}

/// A field selector: `metadata.name=a,status.phase!=Running`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector {
    requirements: Vec<(String, bool, String)>,
}

impl FieldSelector {
    /// The fields that it names.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.requirements.iter().map(|(field, ..)| field.as_str())
    }

    /// The name that it asks for, where it asks for one.
    pub fn name(&self) -> Option<&str> {
        self.requirements
            .iter()
            .find(|(field, equal, _)| field == "metadata.name" && *equal)
            .map(|(.., value)| value.as_str())
    }

    /// Whether an object matches. A field that is not there is the empty string; booleans are `true` and `false`.
    pub fn matches(&self, object: &Value) -> bool {
        self.requirements.iter().all(|(field, equal, wanted)| {
            let found = field.split('.').try_fold(object, |value, key| value.get(key));
            let found = match found {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Bool(_) | Value::Number(_)) => found.map(ToString::to_string).unwrap_or_default(),
                // The API's own default of the two booleans that can be selected by.
                _ if field == "spec.unschedulable" || field == "spec.hostNetwork" => "false".to_owned(),
                _ => String::new(),
            };
            (found == *wanted) == *equal
        })
    }

    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    pub(crate) fn rename(&mut self, to: impl Fn(&str) -> Option<String>) {
        for (field, ..) in &mut self.requirements {
            if let Some(name) = to(field) {
                *field = name;
            }
        }
    }
}

impl FromStr for FieldSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for part in terms(text) {
            let fail = |why| SelectorError {
                text: part.to_owned(),
                why,
            };
            let (field, equal, value) = if let Some((field, value)) = part.split_once("!=") {
                (field, false, value)
            } else if let Some((field, value)) = part.split_once('=') {
                (field, true, value.strip_prefix('=').unwrap_or(value))
            } else {
                return Err(fail("expected `=`, `==` or `!=`"));
            };
            if field.trim().is_empty() {
                return Err(fail("it names no field"));
            }
            let value = unescape(value).ok_or_else(|| fail("a backslash escapes `\\`, `,` or `=` only"))?;
            requirements.push((field.trim().to_owned(), equal, value));
        }
        Ok(Self { requirements })
    }
}

/// Parts between commas that no backslash escapes; empty ones are nothing.
fn terms(text: &str) -> Vec<&str> {
    let mut escaped = false;
    text.split(|c| {
        let ends = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    })
    .filter(|part| !part.trim().is_empty())
    .collect()
}

fn unescape(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => out.push(characters.next().filter(|c| matches!(c, '\\' | ',' | '='))?),
            '=' => return None,
            c => out.push(c),
        }
    }
    Some(out)
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (field, equal, value)) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{field}{}", if *equal { "=" } else { "!=" })?;
            for c in value.chars() {
                if matches!(c, '\\' | ',' | '=') {
                    f.write_str("\\")?;
                }
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn labels(value: &Value) -> Option<&Map<String, Value>> {
        value.as_object()
    }

    #[test]
    fn label_selectors_match_as_kubernetes_says() {
        let object = json!({"app": "gpu", "tier": "3", "a.b/c": ""});
        let matches = |text: &str| text.parse::<LabelSelector>().unwrap().matches(labels(&object));
        for yes in [
            "",
            "app",
            "app=gpu",
            "app==gpu",
            "app!=x",
            "missing!=x",
            "!missing",
            "app in (cpu, gpu),tier",
            "app notin (cpu)",
            "missing notin (cpu)",
            "tier>2",
            "tier<4",
            "a.b/c=",
        ] {
            assert!(matches(yes), "{yes}");
        }
        for no in [
            "!app",
            "app=x",
            "missing",
            "app in (cpu)",
            "missing in (cpu)",
            "tier>3",
            "app>1",
        ] {
            assert!(!matches(no), "{no}");
        }
        assert!("app".parse::<LabelSelector>().is_ok_and(|s| !s.matches(None)));
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for text in ["a=b=c", "a in (b", "a of (b)", "=b", "a>b", ",", "a b", "!", "é"] {
            assert!(text.parse::<LabelSelector>().is_err(), "{text}");
        }
        for text in ["a", "=b", "a=\\x", "a=b=c"] {
            assert!(text.parse::<FieldSelector>().is_err(), "{text}");
        }
    }

    #[test]
    fn field_selectors_match_values_and_what_is_absent() {
        let object = json!({"metadata": {"name": "n"}, "spec": {"unschedulable": true}, "status": {}});
        let matches = |text: &str| text.parse::<FieldSelector>().unwrap().matches(&object);
        assert!(matches("metadata.name=n,spec.unschedulable=true,status.phase="));
        assert!(matches("status.phase!=Running"));
        assert!(!matches("metadata.name!=n"));
        assert!(!matches("status.phase=Running"));
    }

    prop_compose! {
        fn key()(prefix in prop::option::of("[a-z][a-z0-9.]{0,8}[a-z]"), name in "[A-Za-z0-9]([-_.A-Za-z0-9]{0,6}[A-Za-z0-9])?") -> String {
            prefix.filter(|prefix| !prefix.contains("..")).map_or(name.clone(), |prefix| format!("{prefix}/{name}"))
        }
    }

    proptest! {
        #[test]
        fn a_label_selector_prints_what_it_was_read_from(keys in prop::collection::vec((key(), 0..6_u8, prop::collection::btree_set("[a-z]{0,3}", 1..4), any::<i64>()), 0..4)) {
            let requirements = keys.into_iter().map(|(key, test, set, number)| (key, match test {
                0 => Test::Exists,
                1 => Test::Absent,
                2 => Test::In(set),
                3 => Test::NotIn(set),
                4 => Test::Greater(number),
                _ => Test::Less(number),
            })).collect();
            let selector = LabelSelector { requirements };
            // `key in` with an `in` for a key is still a key.
            prop_assert_eq!(selector.to_string().parse::<LabelSelector>(), Ok(selector));
        }

        #[test]
        fn a_field_selector_prints_what_it_was_read_from(terms in prop::collection::vec(("[a-z.]{1,9}", any::<bool>(), "[ -~]{0,6}"), 0..4)) {
            let selector = FieldSelector { requirements: terms };
            prop_assert_eq!(selector.to_string().parse::<FieldSelector>(), Ok(selector));
        }
    }
}
