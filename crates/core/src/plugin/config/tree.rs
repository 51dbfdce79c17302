//! The reader that goes through a document and notes what is wrong.

use serde_saphyr::Spanned;

use super::problem::{ConfigError, Problem, Remark};
use crate::document::{self, Tree};

/// The tree of a text, and its first line; an empty text is [`Tree::Null`].
pub(super) fn parse(text: &str) -> Result<Spanned<Tree>, ConfigError> {
    // A byte order mark is how some editors begin a file.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    document::parse(text).map_err(|error| ConfigError::Syntax {
        line: error.line,
        column: error.column,
        what: error.what,
    })
}

/// A place in a document.
#[derive(Debug, Clone)]
pub(super) struct Place<'a> {
    pub(super) path: String,
    pub(super) line: u64,
    pub(super) tree: &'a Tree,
}

impl<'a> Place<'a> {
    pub(super) fn top(tree: &'a Spanned<Tree>) -> Self {
        Self {
            path: String::new(),
            line: tree.referenced.line(),
            tree: &tree.value,
        }
    }
}

/// The entries of a map, by the names that we know.
#[derive(Debug)]
pub(super) struct Fields<'a>(Vec<(&'static str, Place<'a>)>);

impl<'a> Fields<'a> {
    /// The value of a field; nothing where it is missing or null, as Go has it.
    pub(super) fn get(&self, name: &str) -> Option<&Place<'a>> {
        let (_, place) = self.0.iter().find(|(known, _)| *known == name)?;
        (!matches!(place.tree, Tree::Null)).then_some(place)
    }
}

/// Goes through a document and notes what is wrong.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) problems: Vec<Problem>,
    pub(super) remarks: Vec<Remark>,
}

impl Reader {
    pub(super) fn problem(&mut self, place: &Place<'_>, what: impl Into<String>) {
        self.problems.push(Problem {
            path: place.path.clone(),
            line: Some(place.line),
            what: what.into(),
        });
    }

    pub(super) fn remark(&mut self, place: &Place<'_>, what: impl Into<String>) {
        self.remarks.push(Remark {
            path: place.path.clone(),
            line: Some(place.line),
            what: what.into(),
        });
    }

    fn wrong<T>(&mut self, place: &Place<'_>, wanted: &str) -> Option<T> {
        self.problem(place, format!("must be {wanted}, not {}", place.tree.kind()));
        None
    }

    /// The entries of a map. Those that aren't `known` are remarked.
    pub(super) fn fields<'a>(&mut self, place: &Place<'a>, known: &[&'static str]) -> Fields<'a> {
        let mut fields = Fields(Vec::new());
        let entries = match place.tree {
            Tree::Null => return fields,
            Tree::Map(entries) => entries,
            _ => {
                let _: Option<()> = self.wrong(place, "a map");
                return fields;
            }
        };
        for (key, value) in entries {
            let spelled = &key.value;
            let path = match place.path.as_str() {
                "" => spelled.clone(),
                above => format!("{above}.{spelled}"),
            };
            let here = Place {
                path,
                line: key.referenced.line(),
                tree: &value.value,
            };
            let exact = known.iter().find(|name| *name == spelled);
            let alike = || known.iter().find(|name| name.eq_ignore_ascii_case(spelled));
            match exact.or_else(alike) {
                None => self.remark(&here, "is no field that is known; it is ignored"),
                Some(name) => {
                    let is_exact = name == spelled;
                    if !is_exact {
                        self.remark(
                            &here,
                            format!("is taken for `{name}`, as which it should be spelled"),
                        );
                    }
                    // The field in its own spelling counts, wherever it stands.
                    match fields.0.iter_mut().find(|(other, _)| other == name) {
                        Some(entry) if is_exact => entry.1 = here,
                        Some(_) => {}
                        None => fields.0.push((name, here)),
                    }
                }
            }
        }
        fields
    }

    /// The items of a list.
    pub(super) fn items<'a>(&mut self, place: &Place<'a>, wanted: &str) -> Option<Vec<Place<'a>>> {
        let Tree::List(items) = place.tree else {
            return self.wrong(place, wanted);
        };
        let item = |(at, item): (usize, &'a Spanned<Tree>)| Place {
            path: format!("{}[{at}]", place.path),
            line: item.referenced.line(),
            tree: &item.value,
        };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// Yes or no, in any of the words that YAML has for them.
    pub(super) fn flag(&mut self, place: &Place<'_>) -> Option<bool> {
        match place.tree {
            Tree::Bool(value) => Some(*value),
            _ => self.wrong(place, "true or false"),
        }
    }

    pub(super) fn text<'a>(&mut self, place: &Place<'a>) -> Option<&'a str> {
        match place.tree {
            Tree::Text(text) => Some(text),
            _ => self.wrong(place, "a text"),
        }
    }

    /// A whole number of at least 0.
    pub(super) fn number(&mut self, place: &Place<'_>) -> Option<u32> {
        match place.tree {
            Tree::Int(number) => match u32::try_from(*number) {
                Ok(number) => Some(number),
                Err(_) => self.wrong(place, "a number from 0 to 4294967295"),
            },
            _ => self.wrong(place, "a whole number"),
        }
    }

    /// A text that something can be made of.
    pub(super) fn parsed<T>(&mut self, place: &Place<'_>) -> Option<T>
    where
        T: std::str::FromStr,
        T::Err: std::fmt::Display,
    {
        match self.text(place)?.parse() {
            Ok(value) => Some(value),
            Err(why) => {
                self.problem(place, why.to_string());
                None
            }
        }
    }
}
