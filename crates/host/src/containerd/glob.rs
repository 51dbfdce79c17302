//! Patterns of `imports`, as Go's `filepath.Glob` reads them.

use std::path::{Component, Path, PathBuf};

use pitcrew_core::ports::{FileKind, HostFs};

/// Files of a directory that are looked at, at most.
const MAX_MATCHES: usize = 1000;

/// The paths that match, in order; a directory that isn't there has none. `None` for a pattern that is broken.
pub(super) fn glob(fs: &dyn HostFs, pattern: &Path) -> Option<Vec<PathBuf>> {
    let mut found = vec![PathBuf::from("/")];
    for component in pattern.components() {
        let Component::Normal(name) = component else {
            continue;
        };
        let name = name.to_str()?;
        if !name.contains(['*', '?', '[', '\\']) {
            for path in &mut found {
                path.push(name);
            }
            continue;
        }
        let segment = Segment::parse(name)?;
        let mut next = Vec::new();
        for path in &found {
            let names = fs.list(path).unwrap_or_default();
            next.extend(
                names
                    .into_iter()
                    .filter(|name| segment.matches(name))
                    .map(|name| path.join(name)),
            );
            next.truncate(MAX_MATCHES);
        }
        found = next;
    }
    found.retain(|path| exists(fs, path));
    found.sort();
    Some(found)
}

fn exists(fs: &dyn HostFs, path: &Path) -> bool {
    matches!(
        fs.kind(path),
        Ok(FileKind::File(_)
            | FileKind::Link(_)
            | FileKind::Directory
            | FileKind::CharDevice { .. }
            | FileKind::Other)
    )
}

/// One path segment of a pattern.
struct Segment(Vec<Part>);

enum Part {
    Any,
    One,
    Char(char),
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Segment {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(char) = chars.next() {
            parts.push(match char {
                '*' => Part::Any,
                '?' => Part::One,
                '\\' => Part::Char(chars.next()?),
                '[' => {
                    let negated = chars.next_if_eq(&'^').is_some();
                    let mut ranges = Vec::new();
                    loop {
                        let low = match chars.next()? {
                            ']' if !ranges.is_empty() => break,
                            ']' | '-' => return None,
                            '\\' => chars.next()?,
                            other => other,
                        };
                        let high = if chars.next_if_eq(&'-').is_some() {
                            match chars.next()? {
                                ']' | '-' => return None,
                                '\\' => chars.next()?,
                                other => other,
                            }
                        } else {
                            low
                        };
                        ranges.push((low, high));
                    }
                    Part::Class { negated, ranges }
                }
                other => Part::Char(other),
            });
        }
        Some(Self(parts))
    }

    /// Two pointers and one place to return to: no pattern takes longer than the product of both lengths.
    fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let (mut part, mut at) = (0, 0);
        let mut back: Option<(usize, usize)> = None;
        while at < name.len() {
            match self.0.get(part) {
                Some(Part::Any) => {
                    back = Some((part, at));
                    part += 1;
                }
                Some(one) if one.takes(name[at]) => {
                    part += 1;
                    at += 1;
                }
                _ => match &mut back {
                    Some((star, from)) => {
                        *from += 1;
                        part = *star + 1;
                        at = *from;
                    }
                    None => return false,
                },
            }
        }
        self.0[part..].iter().all(|part| matches!(part, Part::Any))
    }
}

impl Part {
    fn takes(&self, char: char) -> bool {
        match self {
            Self::Any => false,
            Self::One => true,
            Self::Char(own) => *own == char,
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&char)) != *negated
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Segment::parse(pattern).is_some_and(|segment| segment.matches(name))
    }

    #[test]
    fn patterns_match_as_in_go() {
        assert!(matches("*.toml", "99-nvidia.toml"));
        assert!(matches("*.toml", ".toml"));
        assert!(!matches("*.toml", "a.toml.bak"));
        assert!(matches("[a-c]?.*", "bx.toml"));
        assert!(!matches("[^a-c]*", "b"));
        assert!(matches("a\\*b", "a*b"));
        assert!(matches("*a*b*", "xxaxxbxx"));
        assert!(!matches("[", "["), "a broken pattern matches nothing");
        let slow = "*a".repeat(200);
        assert!(!matches(&slow, &"a".repeat(199)));
    }
}
