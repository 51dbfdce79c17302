//! From a manifest as written to a checked root: every refusal names its place and the way on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use serde_saphyr::{Location, Spanned};

use super::HostRoot;
use super::format::{Document, Driver};
use crate::error::{Problem, ScenarioError};
use crate::hostfs::{Node, Tree};
use crate::machine::Machine;
use crate::resolve::without_place;
use crate::scenario::Scenario;

/// Manifests under one another, at most.
const MOST_LAYERS: usize = 8;

type Placed<T> = Result<T, (Location, Problem)>;

pub(super) fn root(
    text: &str,
    name: &str,
    find: &dyn Fn(&str) -> Option<String>,
    layer: usize,
) -> Result<HostRoot, ScenarioError> {
    let invalid = |line, column, problem| ScenarioError::Invalid {
        source_name: name.to_owned(),
        line,
        column,
        problem,
    };
    let placed = |(at, problem): (Location, Problem)| invalid(at.line(), at.column(), problem);
    let document: Document = serde_saphyr::from_str(text).map_err(|error| {
        let (line, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
        invalid(
            line,
            column,
            Problem::Syntax(without_place(&error.without_snippet().to_string())),
        )
    })?;
    let mut root = match &document.like {
        Some(like) => {
            let at = |what: String| placed((like.referenced, Problem::Root(what)));
            if layer == MOST_LAYERS {
                return Err(at(format!(
                    "more than {MOST_LAYERS} roots are `like` one another"
                )));
            }
            let below = find(&like.value).ok_or_else(|| at(format!("there is no root `{}`", like.value)))?;
            self::root(&below, &like.value, find, layer + 1)?
        }
        None => HostRoot {
            name: String::new(),
            description: String::new(),
            files: Tree::default(),
            modes: BTreeMap::new(),
            removed: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            driver: Driver::default(),
            machine: None,
        },
    };
    name.clone_into(&mut root.name);
    let machine = machine(&document).map_err(placed)?;
    fill(&mut root, document).map_err(placed)?;
    // Only the uppermost manifest's machine is brought to life, once it is known what all of them say of its driver.
    let machine = machine.or_else(|| root.machine.take());
    Ok(match machine {
        Some(machine) if layer == 0 => root.with_machine(machine),
        machine => HostRoot { machine, ..root },
    })
}

fn machine(document: &Document) -> Placed<Option<Machine>> {
    let Some(name) = &document.scenario else {
        return Ok(None);
    };
    match Scenario::builtin(&name.value) {
        Ok(scenario) => Ok(Some(Machine::new(scenario))),
        Err(error) => Err((name.referenced, Problem::Root(error.to_string()))),
    }
}

/// Lays the entries of a document over those that are there.
fn fill(root: &mut HostRoot, document: Document) -> Placed<()> {
    root.description = document.description;
    for path in &document.remove {
        let path = checked(&path.value, path.referenced)?;
        root.files.remove(&path);
        root.modes.retain(|known, _| !known.starts_with(&path));
        root.unreadable.retain(|known| !known.starts_with(&path));
        root.removed.insert(path);
    }
    let Driver {
        loaded,
        version,
        libraries,
    } = document.driver;
    root.driver.loaded = loaded.or(root.driver.loaded);
    root.driver.version = version.or(root.driver.version.take());
    root.driver.libraries = libraries.or(root.driver.libraries.take());

    let mut own = BTreeMap::new();
    let mut add = |path: &str, at: Location, node: Node| -> Placed<()> {
        let path = checked(path, at)?;
        if own.insert(path.clone(), (at, node)).is_some() {
            let twice = format!("`{}` is given twice", path.display());
            return Err((at, Problem::Root(twice)));
        }
        Ok(())
    };
    for (path, text) in document.files {
        let (at, text) = (text.referenced, text.value);
        let size = text.len() as u64;
        add(&path, at, Node::File { size, text })?;
    }
    for (path, target) in document.links {
        if target.value.is_empty() || target.value.contains('\0') {
            let what = format!("the link `{path}` points nowhere");
            return Err((target.referenced, Problem::Root(what)));
        }
        add(&path, target.referenced, Node::Link(target.value.into()))?;
    }
    for (path, numbers) in document.devices {
        add(&path, numbers.referenced, device(&numbers)?)?;
    }
    for path in document.sockets {
        add(&path.value, path.referenced, Node::Socket)?;
    }
    for path in document.directories {
        add(&path.value, path.referenced, Node::Directory)?;
    }
    for (path, (_, node)) in &own {
        // What lay there before gives way, with all below it unless both are directories.
        if matches!(node, Node::Directory) {
            if root
                .files
                .get(path)
                .is_some_and(|before| !matches!(before, Node::Directory))
            {
                root.files.remove(path);
            }
        } else {
            root.files.remove(path);
        }
    }
    for (path, (at, node)) in own {
        let blocked = path.ancestors().skip(1).find(|above| {
            root.files
                .get(above)
                .is_some_and(|node| !matches!(node, Node::Directory))
        });
        if let Some(above) = blocked {
            let what = format!(
                "`{}` lies in `{}`, which is no directory",
                path.display(),
                above.display()
            );
            return Err((at, Problem::Root(what)));
        }
        root.files.add(path, node);
    }
    for (path, mode) in document.modes {
        let bits = u32::from_str_radix(&mode.value, 8)
            .ok()
            .filter(|bits| *bits <= 0o7777);
        let bits = bits.ok_or_else(|| bad(&mode, "modes", "octal digits in quotes such as \"0600\""))?;
        root.modes.insert(checked(&path, mode.referenced)?, bits);
    }
    for path in document.unreadable {
        root.unreadable.insert(checked(&path.value, path.referenced)?);
    }
    Ok(())
}

/// A path that names one place.
fn checked(path: &str, at: Location) -> Placed<PathBuf> {
    let plain = Path::new(path)
        .components()
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !path.starts_with('/') || path == "/" || !plain || path.contains('\0') {
        let what = format!("`{path}` must be an absolute path without `..`");
        return Err((at, Problem::Root(what)));
    }
    // Without doubled and trailing slashes.
    Ok(Path::new(path).components().collect())
}

fn device(numbers: &Spanned<String>) -> Placed<Node> {
    let parsed = numbers.value.split_once(':').and_then(|(major, minor)| {
        Some(Node::CharDevice {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    });
    parsed.ok_or_else(|| bad(numbers, "devices", "major and minor in quotes such as \"195:0\""))
}

fn bad(given: &Spanned<String>, field: &str, expected: &str) -> (Location, Problem) {
    let problem = Problem::BadValue {
        field: field.to_owned(),
        expected: expected.to_owned(),
        found: format!("`{}`", given.value),
    };
    (given.referenced, problem)
}
