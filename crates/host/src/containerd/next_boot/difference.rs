//! What differs between two configurations.

use std::collections::BTreeMap;
use std::fmt;

use crate::containerd::base::mask;
use crate::containerd::tree::{self, Table, Value};
use crate::facts::ContainerdConfig;

/// One thing that changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What changes, e.g. `handler nvidia`, `default handler`, `CDI`.
    pub what: String,
    /// What it is now; `None` where there is none.
    pub from: Option<String>,
    /// What it will be; `None` where there will be none.
    pub to: Option<String>,
}

impl Difference {
    /// The handler that will be gone.
    pub fn lost_handler(&self) -> Option<&str> {
        match (&self.to, self.what.strip_prefix("handler ")) {
            (None, Some(name)) => Some(name),
            _ => None,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.from, &self.to) {
            (Some(from), Some(to)) => write!(f, "{}: {from} -> {to}", self.what),
            (Some(from), None) => write!(f, "{}: {from} -> gone", self.what),
            (None, Some(to)) => write!(f, "{}: new, {to}", self.what),
            (None, None) => f.write_str(&self.what),
        }
    }
}

/// What changes between two configurations.
pub(super) fn between(now: &ContainerdConfig, next: &ContainerdConfig) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut add = |what: &str, from: Option<String>, to: Option<String>| {
        if from != to {
            found.push(Difference {
                what: what.to_owned(),
                from,
                to,
            });
        }
    };
    add(
        "version",
        Some(now.version.to_string()),
        Some(next.version.to_string()),
    );
    // containerd has runc by itself, and what RKE2 and K3s write for Windows concerns nobody here.
    let of_interest = |(name, binary): &&(String, String)| {
        !(name == "runc" && binary.is_empty()) && name != "runhcs-wcow-process"
    };
    let old: BTreeMap<_, _> = now.handlers.iter().filter(of_interest).cloned().collect();
    let new: BTreeMap<_, _> = next.handlers.iter().filter(of_interest).cloned().collect();
    let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let shown = |binary: &String| {
        if binary.is_empty() {
            "its default binary".to_owned()
        } else {
            binary.clone()
        }
    };
    for name in names {
        add(
            &format!("handler {name}"),
            old.get(name).map(shown),
            new.get(name).map(shown),
        );
    }
    add(
        "default handler",
        now.default_handler.clone(),
        next.default_handler.clone(),
    );
    let flag =
        |flag: Option<bool>, on: &str, off: &str| flag.map(|flag| if flag { on } else { off }.to_owned());
    add(
        "CDI",
        flag(now.enable_cdi, "on", "off"),
        flag(next.enable_cdi, "on", "off"),
    );
    let list = |dirs: &Option<Vec<String>>| dirs.as_ref().map(|dirs| dirs.join(", "));
    add("CDI directories", list(&now.cdi_dirs), list(&next.cdi_dirs));
    add(
        "NRI",
        flag(now.nri_disabled, "off", "on"),
        flag(next.nri_disabled, "off", "on"),
    );
    add(
        "SELinux",
        flag(Some(now.enable_selinux == Some(true)), "on", "off"),
        flag(Some(next.enable_selinux == Some(true)), "on", "off"),
    );
    found
}

/// Keys that change in the file, sorted, `-` before `+`; logins are masked.
pub(super) fn lines(mut old: Table, mut new: Table) -> Vec<String> {
    mask(&mut old);
    mask(&mut new);
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    flatten(&old, &mut Vec::new(), &mut before);
    flatten(&new, &mut Vec::new(), &mut after);
    let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut lines = Vec::new();
    for key in keys {
        let (from, to) = (before.get(key), after.get(key));
        if from == to {
            continue;
        }
        lines.extend(from.map(|value| format!("- {key} = {value}")));
        lines.extend(to.map(|value| format!("+ {key} = {value}")));
    }
    lines
}

fn flatten<'a>(table: &'a Table, path: &mut Vec<&'a str>, into: &mut BTreeMap<String, String>) {
    for (key, value) in table {
        path.push(key);
        match value {
            Value::Table(inner) => flatten(inner, path, into),
            other => {
                into.insert(tree::dotted(path), shown(other));
            }
        }
        path.pop();
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Table(table) => {
            let parts: Vec<String> = table
                .iter()
                .map(|(key, value)| format!("{key} = {}", shown(value)))
                .collect();
            format!("{{ {} }}", parts.join(", "))
        }
        Value::Array(items) => {
            let parts: Vec<String> = items.iter().map(shown).collect();
            format!("[{}]", parts.join(", "))
        }
        Value::String(text) => format!("{text:?}"),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(flag) => flag.to_string(),
        Value::Datetime(text) => text.clone(),
    }
}
