//! Functions of Go's templates and of K3s.

use std::fmt::Write as _;

use super::{Datum, TemplateError};

pub(super) fn truth(value: &Datum, line: usize) -> Result<bool, TemplateError> {
    Ok(match value {
        Datum::Nil => false,
        Datum::Bool(flag) => *flag,
        Datum::Int(number) => *number != 0,
        Datum::Text(text) => !text.is_empty(),
        Datum::List(items) => !items.is_empty(),
        // A structure is always true in Go, an empty one too.
        Datum::Struct(_) => true,
        Datum::Map { entries, .. } => !entries.is_empty(),
        Datum::Unknown(name) => return Err(unknown(line, name)),
    })
}

fn unknown(line: usize, name: &str) -> TemplateError {
    TemplateError::unknown(line, format!("`{name}` is not known here"))
}

/// A value as it is written into the text.
pub(super) fn printed(value: &Datum, line: usize) -> Result<String, TemplateError> {
    Ok(match value {
        Datum::Bool(flag) => flag.to_string(),
        Datum::Int(number) => number.to_string(),
        Datum::Text(text) => text.clone(),
        Datum::Unknown(name) => return Err(unknown(line, name)),
        Datum::Nil | Datum::List(_) | Datum::Struct(_) | Datum::Map { .. } => {
            return Err(TemplateError::unknown(
                line,
                "a value that is no text is written out",
            ));
        }
    })
}

pub(super) fn call(name: &str, arguments: &[Datum], line: usize) -> Result<Datum, TemplateError> {
    for argument in arguments {
        if let Datum::Unknown(what) = argument {
            return Err(unknown(line, what));
        }
    }
    let wrong = || TemplateError::unknown(line, format!("arguments of `{name}` that are not read here"));
    match (name, arguments) {
        ("not", [value]) => Ok(Datum::Bool(!truth(value, line)?)),
        ("len", [value]) => {
            let length = match value {
                Datum::Text(text) => text.len(),
                Datum::List(items) => items.len(),
                Datum::Map { entries, .. } => entries.len(),
                _ => return Err(wrong()),
            };
            i64::try_from(length).map(Datum::Int).map_err(|_| wrong())
        }
        ("index", [value, keys @ ..]) => index(value, keys, line),
        ("eq", [first, rest @ ..]) if !rest.is_empty() => {
            for other in rest {
                if same(first, other).ok_or_else(wrong)? {
                    return Ok(Datum::Bool(true));
                }
            }
            Ok(Datum::Bool(false))
        }
        ("ne", [one, other]) => same(one, other).map(|same| Datum::Bool(!same)).ok_or_else(wrong),
        ("lt" | "le" | "gt" | "ge", [one, other]) => {
            let order = match (one, other) {
                (Datum::Int(one), Datum::Int(other)) => one.cmp(other),
                (Datum::Text(one), Datum::Text(other)) => one.cmp(other),
                _ => return Err(wrong()),
            };
            Ok(Datum::Bool(match name {
                "lt" => order.is_lt(),
                "le" => order.is_le(),
                "gt" => order.is_gt(),
                _ => order.is_ge(),
            }))
        }
        ("print", values) => print(values, line).map(Datum::Text),
        ("printf", [Datum::Text(format), values @ ..]) => printf(format, values, line).map(Datum::Text),
        // K3s's own; on Linux the first gives what it gets.
        ("deschemify", [Datum::Text(text)]) => Ok(Datum::Text(text.clone())),
        ("filepathjoin", parts) => join(parts).map(Datum::Text).ok_or_else(wrong),
        ("not" | "len" | "index" | "eq" | "ne" | "lt" | "le" | "gt" | "ge" | "printf" | "deschemify", _) => {
            Err(wrong())
        }
        _ => Err(TemplateError::unknown(
            line,
            format!("the function `{name}` is not known here"),
        )),
    }
}

fn same(one: &Datum, other: &Datum) -> Option<bool> {
    match (one, other) {
        (Datum::Bool(one), Datum::Bool(other)) => Some(one == other),
        (Datum::Int(one), Datum::Int(other)) => Some(one == other),
        (Datum::Text(one), Datum::Text(other)) => Some(one == other),
        _ => None,
    }
}

fn index(value: &Datum, keys: &[Datum], line: usize) -> Result<Datum, TemplateError> {
    let mut at = value;
    for key in keys {
        at = match (at, key) {
            (Datum::Map { entries, zero }, Datum::Text(key)) => entries.get(key).unwrap_or(zero),
            (Datum::List(items), Datum::Int(index)) => usize::try_from(*index)
                .ok()
                .and_then(|index| items.get(index))
                .ok_or_else(|| TemplateError::refused(line, format!("the list has no element {index}")))?,
            (Datum::Unknown(name), _) => return Err(unknown(line, name)),
            _ => {
                return Err(TemplateError::unknown(
                    line,
                    "arguments of `index` that are not read here",
                ));
            }
        };
    }
    Ok(at.clone())
}

/// Blanks stand between two values of which neither is a string.
fn print(values: &[Datum], line: usize) -> Result<String, TemplateError> {
    let mut out = String::new();
    let mut before_is_text = true;
    for value in values {
        let is_text = matches!(value, Datum::Text(_));
        if !out.is_empty() && !before_is_text && !is_text {
            out.push(' ');
        }
        out.push_str(&printed(value, line)?);
        before_is_text = is_text;
    }
    Ok(out)
}

fn printf(format: &str, values: &[Datum], line: usize) -> Result<String, TemplateError> {
    let wrong = |what: &str| TemplateError::unknown(line, format!("`printf` with {what} is not read here"));
    let mut out = String::new();
    let mut values = values.iter();
    let mut chars = format.chars();
    while let Some(char) = chars.next() {
        if char != '%' {
            out.push(char);
            continue;
        }
        let verb = chars.next().ok_or_else(|| wrong("a `%` at its end"))?;
        if verb == '%' {
            out.push('%');
            continue;
        }
        let value = values.next().ok_or_else(|| wrong("too few values"))?;
        match (verb, value) {
            ('s' | 'v', Datum::Text(text)) => out.push_str(text),
            ('q', Datum::Text(text)) => quote(&mut out, text),
            ('d' | 'v', Datum::Int(number)) => {
                let _ = write!(out, "{number}");
            }
            ('t' | 'v', Datum::Bool(flag)) => {
                let _ = write!(out, "{flag}");
            }
            (verb, _) => return Err(wrong(&format!("`%{verb}` for such a value"))),
        }
    }
    if values.next().is_some() {
        return Err(wrong("too many values"));
    }
    Ok(out)
}

/// A string as Go quotes it.
fn quote(out: &mut String, text: &str) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\u{b}' => out.push_str("\\v"),
            control if u32::from(control) < 0x20 || control == '\u{7f}' => {
                let _ = write!(out, "\\x{:02x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

/// `filepath.Join`: parts by one slash, empty ones left out, `.` and `..` resolved.
fn join(parts: &[Datum]) -> Option<String> {
    let mut whole = String::new();
    for part in parts {
        let Datum::Text(text) = part else { return None };
        if text.is_empty() {
            continue;
        }
        if !whole.is_empty() {
            whole.push('/');
        }
        whole.push_str(text);
    }
    if whole.is_empty() {
        return Some(whole);
    }
    let rooted = whole.starts_with('/');
    let mut kept: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." if kept.last().is_some_and(|last| *last != "..") => {
                kept.pop();
            }
            ".." if rooted => {}
            other => kept.push(other),
        }
    }
    let joined = kept.join("/");
    Some(match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(parts: &[&str]) -> Vec<Datum> {
        parts.iter().map(|part| Datum::from(*part)).collect()
    }

    #[test]
    fn paths_are_joined_as_in_go() {
        assert_eq!(join(&texts(&["/a/", "b", "", "../c"])), Some("/a/c".to_owned()));
        assert_eq!(join(&texts(&["a", "..", ".."])), Some("..".to_owned()));
        assert_eq!(join(&texts(&["/", ".."])), Some("/".to_owned()));
        assert_eq!(join(&texts(&["", ""])), Some(String::new()));
        assert_eq!(join(&[Datum::Int(1)]), None);
    }

    #[test]
    fn what_printf_can_not_do_is_told() {
        let error = printf("%05d", &[Datum::Int(3)], 4).unwrap_err();
        assert!(!error.refused);
        assert_eq!(error.line, 4);
        assert!(printf("%s", &[], 1).is_err());
        assert_eq!(printf("%q %%", &texts(&["a\"\n"]), 1).unwrap(), "\"a\\\"\\n\" %");
    }
}
