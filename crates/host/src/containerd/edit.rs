//! A piece of containerd's configuration that is put into a file of somebody else's, and taken out of it again: what was
//! there stays as it is, byte for byte, comments and spaces among it.
//!
//! A piece stands between two lines of comment. Who rewrites the whole file loses them; what is taken out is then found by
//! what it says.

use std::ops::Range;
use std::path::Path;

use toml_edit::{Array, DocumentMut, InlineTable, Item, TableLike};

use super::config::cri_section;
use super::tree::{self, Table, Value};
use super::{ConfigError, parse_table};

/// The line before a piece of ours.
const BEGIN: &str = "# pitcrew: begin; `pitcrew agent uninstall` takes this away";
/// The same, where the line before it had no end.
const BEGIN_JOINED: &str =
    "# pitcrew: begin, on a line of its own; `pitcrew agent uninstall` takes this away";
/// The line after it.
const END: &str = "# pitcrew: end";

/// A runtime handler, as it is to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct HandlerTable {
    /// `version` of the file that it goes into: it decides which section CRI's is.
    pub version: u32,
    /// Name of the handler.
    pub name: String,
    /// What its table holds, `options` among it.
    pub runtime: Table,
}

impl HandlerTable {
    /// A handler that is started by this program and else as another table says, which is the node's default runtime's.
    pub fn like(version: u32, name: &str, model: Option<&Table>, binary: &Path) -> Self {
        let mut runtime = model.cloned().unwrap_or_default();
        runtime
            .entry("runtime_type".to_owned())
            .or_insert_with(|| Value::String("io.containerd.runc.v2".to_owned()));
        let options = runtime
            .entry("options".to_owned())
            .or_insert_with(|| Value::Table(Table::new()));
        if !matches!(options, Value::Table(_)) {
            *options = Value::Table(Table::new());
        }
        if let Value::Table(options) = options {
            let binary = binary.to_string_lossy().into_owned();
            options.insert("BinaryName".to_owned(), Value::String(binary));
        }
        Self {
            version,
            name: name.to_owned(),
            runtime,
        }
    }

    /// Its tables, as TOML.
    fn tables(&self) -> String {
        let mut document = DocumentMut::new();
        let mut at = document.as_table_mut();
        for key in ["plugins", cri_section(self.version), "containerd", "runtimes"] {
            let mut next = toml_edit::Table::new();
            next.set_implicit(true);
            at.insert(key, Item::Table(next));
            let Some(Item::Table(next)) = at.get_mut(key) else {
                return String::new();
            };
            at = next;
        }
        at.insert(&self.name, Item::Table(table(&self.runtime)));
        document.to_string()
    }

    /// A whole file with nothing else in it.
    pub fn drop_in(&self) -> String {
        format!(
            "# Written by pitcrew; `pitcrew agent uninstall` takes it away.\nversion = {}\n{}",
            self.version,
            self.tables()
        )
    }

    /// A file with the handler at its end. The file must not have a handler of this name.
    ///
    /// # Errors
    /// Where what comes of it is no TOML: a table that is written in one line can't be added to at the end.
    pub fn appended(&self, text: &str) -> Result<String, ConfigError> {
        let begin = if text.is_empty() || text.ends_with('\n') {
            BEGIN.to_owned()
        } else {
            format!("\n{BEGIN_JOINED}")
        };
        let edited = format!("{text}{begin}\n{}{END}\n", self.tables());
        parse_table(&edited)?;
        Ok(edited)
    }
}

/// A file that imports this pattern too. A file that is empty becomes one of this version that imports it and nothing else.
///
/// # Errors
/// Where the file is no TOML, or its `imports` is no list.
pub fn with_import(text: &str, version: u32, pattern: &str) -> Result<String, ConfigError> {
    let quoted = quoted(pattern);
    if text.trim().is_empty() {
        return Ok(format!(
            "{BEGIN}\nversion = {version}\nimports = [{quoted}]\n{END}\n{text}"
        ));
    }
    let edited = match imports(text)? {
        // At the top, as it must come before the first table.
        None => format!("{BEGIN}\nimports = [{quoted}]\n{END}\n{text}"),
        Some((list, is_empty)) => {
            let (before, after) = text.split_at(list.start + 1);
            let comma = if is_empty { "" } else { ", " };
            format!("{before}{quoted}{comma}{after}")
        }
    };
    parse_table(&edited)?;
    Ok(edited)
}

fn quoted(pattern: &str) -> String {
    toml_edit::Value::from(pattern).to_string()
}

/// Where the list of `imports` is, and whether it is empty.
fn imports(text: &str) -> Result<Option<(Range<usize>, bool)>, ConfigError> {
    parse_table(text)?;
    let document = toml_edit::Document::parse(text).map_err(|error| ConfigError::new(error.message()))?;
    let Some(item) = document.get("imports") else {
        return Ok(None);
    };
    let list = item.as_array().zip(item.span());
    let (array, span) = list.ok_or_else(|| ConfigError::new("it is no list").key("imports"))?;
    Ok(Some((span, array.is_empty())))
}

/// A file without what [`with_import`] and [`HandlerTable::appended`] have put into it: the same as before, where nothing
/// else was changed meanwhile, and with every other change where something was. `binary` is that of the handler.
pub fn without(text: &str, pattern: &str, name: &str, binary: &Path) -> String {
    let mut text = without_pieces(text);
    if let Ok(Some((list, _))) = imports(&text) {
        let quoted = quoted(pattern);
        let inside = text.get(list.clone()).unwrap_or_default();
        for snippet in [format!("[{quoted}, "), format!("[{quoted}")] {
            if inside.starts_with(&snippet) {
                text.replace_range(list.start + 1..list.start + snippet.len(), "");
                break;
            }
        }
    }
    // Somebody has written the file anew.
    let Ok(mut document) = text.parse::<DocumentMut>() else {
        return text;
    };
    let mut is_changed = false;
    if let Some(list) = document.get_mut("imports").and_then(Item::as_array_mut) {
        let count = list.len();
        list.retain(|import| import.as_str() != Some(pattern));
        is_changed |= list.len() != count;
    }
    for version in [1, 2, 3] {
        let runtimes = ["plugins", cri_section(version), "containerd", "runtimes"];
        let runtimes = runtimes
            .iter()
            .try_fold(document.as_table_mut() as &mut dyn TableLike, |at, key| {
                at.get_mut(key)?.as_table_like_mut()
            });
        let Some(runtimes) = runtimes else { continue };
        let is_ours = runtimes
            .get(name)
            .and_then(|handler| {
                handler
                    .as_table_like()?
                    .get("options")?
                    .as_table_like()?
                    .get("BinaryName")
            })
            .is_some_and(|found| found.as_str().map(Path::new) == Some(binary));
        if is_ours {
            runtimes.remove(name);
            is_changed = true;
        }
    }
    if is_changed { document.to_string() } else { text }
}

/// Without what stands between two lines of ours.
fn without_pieces(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((begin, end, is_joined)) = piece(rest) {
        let before = &rest[..begin];
        kept.push_str(if is_joined {
            before.strip_suffix('\n').unwrap_or(before)
        } else {
            before
        });
        rest = &rest[end..];
    }
    kept.push_str(rest);
    kept
}

/// The first piece that has an end: where it begins and ends, and whether the line before it had no end.
fn piece(text: &str) -> Option<(usize, usize, bool)> {
    let mut begun = None;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let plain = line.trim_end();
        if plain == BEGIN || plain == BEGIN_JOINED {
            begun = Some((at, plain == BEGIN_JOINED));
        }
        at += line.len();
        if let (END, Some((begin, is_joined))) = (plain, begun) {
            return Some((begin, at, is_joined));
        }
    }
    None
}

fn table(from: &Table) -> toml_edit::Table {
    let mut into = toml_edit::Table::new();
    for (key, value) in from {
        let item = match value {
            Value::Table(of) => Item::Table(table(of)),
            other => Item::Value(plain(other)),
        };
        into.insert(key, item);
    }
    into
}

fn plain(value: &Value) -> toml_edit::Value {
    match value {
        Value::Table(of) => {
            let mut into = InlineTable::new();
            for (key, value) in of {
                into.insert(key, plain(value));
            }
            into.into()
        }
        Value::Array(of) => of.iter().map(plain).collect::<Array>().into(),
        Value::String(of) => of.as_str().into(),
        Value::Integer(of) => (*of).into(),
        Value::Float(of) => (*of).into(),
        Value::Boolean(of) => (*of).into(),
        // One that can't be read back was none.
        Value::Datetime(of) => of
            .parse::<toml_edit::Datetime>()
            .map_or_else(|_| of.as_str().into(), Into::into),
    }
}

/// The table of a runtime handler in a whole configuration of this version.
pub fn runtime<'a>(table: &'a Table, version: u32, name: &str) -> Option<&'a Table> {
    let path = ["plugins", cri_section(version), "containerd", "runtimes", name];
    tree::get(table, &path)?.as_table()
}

/// A whole configuration without a handler, and without `imports`: what must be the same before and after.
pub fn without_handler(mut table: Table, name: &str) -> Table {
    table.remove("imports");
    for version in [1, 2, 3] {
        let path = ["plugins", cri_section(version), "containerd", "runtimes"];
        let runtimes = path
            .iter()
            .try_fold(&mut table, |at, key| match at.get_mut(*key)? {
                Value::Table(next) => Some(next),
                _ => None,
            });
        if let Some(runtimes) = runtimes {
            runtimes.remove(name);
        }
    }
    table
}

#[cfg(test)]
mod tests;
