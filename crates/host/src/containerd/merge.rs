//! A configuration with its imports, merged as containerd merges them.

use std::collections::{HashSet, VecDeque};
use std::path::{Component, Path, PathBuf};

use pitcrew_core::ports::HostFs;

use super::config::{self, cri_section_in_force, cri_v2, cri_v3, extract};
use super::glob::glob;
use super::tree::{self, Table, Value};
use super::{ConfigError, Generation, parse_table};
use crate::facts::ContainerdConfig;

/// Files that are followed; a loop is ended by name before that.
const MAX_FILES: usize = 1000;

/// A configuration after its imports.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    /// What it says of GPUs. Its `version` and `imports` are those of the main file.
    pub config: ContainerdConfig,
    /// Files that were read, in the order in which they were merged; the first is the main file.
    pub files: Vec<ConfigFile>,
    /// Everything, merged.
    pub table: Table,
}

/// One file of a configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigFile {
    /// Its path.
    pub path: PathBuf,
    /// `version` as written; `None` where it says none.
    pub version: Option<u32>,
    /// What it says.
    pub table: Table,
}

/// Reads a configuration and everything that it imports.
///
/// Merging is containerd's own: generation 1 replaces a plugin's whole section and reads the section that belongs to
/// the version of the last file that has one; generation 2 merges key by key, and converts what is left in CRI's
/// section of version 2 only where the version is 2 in the end, and there only keys that version 3's section lacks.
///
/// # Errors
/// What makes containerd refuse the file: no TOML, an import by name that isn't there, a version that it doesn't know.
pub fn effective(fs: &dyn HostFs, path: &Path, generation: Generation) -> Result<Effective, ConfigError> {
    effective_of(&|path| read(fs, path), fs, path, generation)
}

/// As [`effective`], with the main file's text given: it need not be on the disk yet.
pub(super) fn effective_text(
    fs: &dyn HostFs,
    path: &Path,
    text: &str,
    generation: Generation,
) -> Result<Effective, ConfigError> {
    let from = |wanted: &Path| {
        if wanted == path {
            Ok(text.to_owned())
        } else {
            read(fs, wanted)
        }
    };
    effective_of(&from, fs, path, generation)
}

fn read(fs: &dyn HostFs, path: &Path) -> Result<String, ConfigError> {
    let bytes = fs.read(path).map_err(|error| {
        let what = if error.kind() == std::io::ErrorKind::NotFound {
            "it is not there".to_owned()
        } else {
            format!("it can't be read: {error}")
        };
        ConfigError::new(what)
            .file(path)
            .unread(error.kind() == std::io::ErrorKind::PermissionDenied)
    })?;
    String::from_utf8(bytes).map_err(|_| ConfigError::new("it is not UTF-8").file(path))
}

fn effective_of(
    text_of: &dyn Fn(&Path) -> Result<String, ConfigError>,
    fs: &dyn HostFs,
    main: &Path,
    generation: Generation,
) -> Result<Effective, ConfigError> {
    let mut merged = Table::new();
    let mut files: Vec<ConfigFile> = Vec::new();
    // Generation 2 starts from its own newest version; in both the last file that says one wins.
    let mut version = match generation {
        Generation::One => 1,
        Generation::Two => 3,
    };
    let mut loaded = HashSet::new();
    let mut pending = VecDeque::from([(main.to_path_buf(), None::<PathBuf>)]);
    while let Some((path, importer)) = pending.pop_front() {
        if !loaded.insert(path.clone()) {
            continue;
        }
        if files.len() == MAX_FILES {
            return Err(ConfigError::new(format!("more than {MAX_FILES} files are imported")).file(main));
        }
        let text = text_of(&path).map_err(|error| match &importer {
            Some(importer) => {
                ConfigError::new(format!("an import of {}: {}", importer.display(), error.what))
                    .file(path.clone())
                    .unread(error.unread)
            }
            None => error,
        })?;
        let mut table = parse_table(&text).map_err(|error| error.file(&path))?;
        let written = match table.get("version") {
            None | Some(Value::Integer(0)) => None,
            Some(_) => Some(config::version(&table).map_err(|error| error.file(&path))?),
        };
        let imports = extract(&table, 1, "")
            .map_err(|(error, _)| error.file(&path))?
            .imports;
        files.push(ConfigFile {
            path: path.clone(),
            version: written,
            table: table.clone(),
        });
        match generation {
            Generation::One => {
                version = written.unwrap_or(version);
                merge_replacing(&mut merged, table);
            }
            Generation::Two => {
                if written.is_none_or(|version| version < 2) {
                    lengthen_plugin_names(&mut table);
                } else {
                    version = written.unwrap_or(version);
                }
                merge_deeply(&mut merged, table, true);
            }
        }
        pending.extend(
            resolve(fs, &path, &imports)
                .map_err(|pattern| ConfigError::new("a broken pattern").key(pattern).file(&path))?
                .into_iter()
                .map(|import| (import, Some(path.clone()))),
        );
    }
    validate(&merged, version, generation).map_err(|error| error.file(main))?;
    if generation == Generation::Two && version < 3 {
        convert_cri(&mut merged);
    }
    let section = cri_section_in_force(generation, version);
    let nri_version = if generation == Generation::Two { 3 } else { version };
    let mut found = extract(&merged, nri_version, section).map_err(|(error, _)| error.file(main))?;
    if let Some(first) = files.first() {
        found.version = config::version(&first.table).map_err(|error| error.file(main))?;
        found.imports = extract(&first.table, 1, "")
            .map_err(|(error, _)| error.file(main))?
            .imports;
    }
    Ok(Effective {
        config: found,
        files,
        table: merged,
    })
}

/// `imports` of one file as absolute paths; `Err` is the pattern that is broken.
fn resolve(fs: &dyn HostFs, parent: &Path, imports: &[String]) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for import in imports {
        let path = absolute(parent, import);
        if import.contains('*') {
            found.extend(glob(fs, &path).ok_or_else(|| import.clone())?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

/// The path that an import means; a relative one starts at the directory of the file that names it.
pub(super) fn absolute(parent: &Path, import: &str) -> PathBuf {
    let path = parent.parent().unwrap_or(Path::new("/")).join(import);
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// Generation 1: tables of the file itself by key, lists joined, a plugin's section replaced as a whole.
fn merge_replacing(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            // These are maps, and a map's values are replaced as a whole; the others are known fields.
            (Some(Value::Table(old)), Value::Table(new)) => old.extend(new),
            (Some(Value::Array(old)), Value::Array(new)) => old.extend(new),
            (_, new) => {
                into.insert(key, new);
            }
        }
    }
}

/// Generation 2: key by key to any depth. Lists are joined at the top and replaced inside of plugins.
fn merge_deeply(into: &mut Table, from: Table, top: bool) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge_deeply(old, new, false),
            (Some(Value::Array(old)), Value::Array(new)) if top => {
                for item in new {
                    if !old.contains(&item) {
                        old.push(item);
                    }
                }
            }
            (_, new) => {
                into.insert(key, new);
            }
        }
    }
}

/// Names of plugins in version 1, in the form that version 2 and later have.
fn lengthen_plugin_names(table: &mut Table) {
    let Some(Value::Table(plugins)) = table.get_mut("plugins") else {
        return;
    };
    *plugins = std::mem::take(plugins)
        .into_iter()
        .map(|(name, value)| {
            let long = match name.as_str() {
                long if long.contains('.') => return (name, value),
                "opt" => "io.containerd.internal.v1.opt".to_owned(),
                short => format!("io.containerd.grpc.v1.{short}"),
            };
            (long, value)
        })
        .collect();
}

/// Generation 2, where the version is 2 in the end: what CRI's section of version 2 says, as far as version 3's
/// section lacks the key. `runtimes` is one such key: where version 3 has any, those of version 2 are lost.
fn convert_cri(table: &mut Table) {
    let Some(Value::Table(plugins)) = table.get_mut("plugins") else {
        return;
    };
    let Some(Value::Table(old)) = plugins.get(cri_v2()).cloned() else {
        return;
    };
    let Value::Table(new) = plugins
        .entry(cri_v3().to_owned())
        .or_insert_with(|| Value::Table(Table::new()))
    else {
        return;
    };
    for (key, value) in old {
        match (key.as_str(), value) {
            ("containerd", Value::Table(mut part)) => {
                for moved in [
                    "snapshotter",
                    "disable_snapshot_annotations",
                    "discard_unpacked_layers",
                ] {
                    part.remove(moved);
                }
                fill(new, "containerd", part);
            }
            ("cni", Value::Table(mut part)) => {
                if let Some(dir) = part.remove("bin_dir") {
                    part.insert("bin_dirs".to_owned(), Value::Array(vec![dir]));
                }
                fill(new, "cni", part);
            }
            (key, _) if MOVED.contains(&key) => {}
            (_, value) => {
                new.entry(key).or_insert(value);
            }
        }
    }
}

/// Keys of CRI's section in version 2 that belong to other plugins in version 3.
const MOVED: [&str; 13] = [
    "sandbox_image",
    "registry",
    "image_decryption",
    "max_concurrent_downloads",
    "image_pull_progress_timeout",
    "image_pull_with_sync_fs",
    "stats_collect_period",
    "disable_tcp_service",
    "stream_server_address",
    "stream_server_port",
    "stream_idle_timeout",
    "enable_tls_streaming",
    "x509_key_pair_streaming",
];

/// Adds to a table in `table` the keys that it lacks.
fn fill(table: &mut Table, key: &str, from: Table) {
    let part = table
        .entry(key.to_owned())
        .or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(part) = part {
        for (key, value) in from {
            part.entry(key).or_insert(value);
        }
    }
}

/// What containerd itself refuses after merging.
fn validate(table: &Table, version: u32, generation: Generation) -> Result<(), ConfigError> {
    // 2.3 knows version 4; what it says of CRI is where version 3 has it.
    let newest = match generation {
        Generation::One => 2,
        Generation::Two => 4,
    };
    if version > newest {
        return Err(ConfigError::new(format!(
            "containerd {} knows no version {version} of its configuration",
            match generation {
                Generation::One => "1",
                Generation::Two => "2",
            }
        ))
        .key("version"));
    }
    if generation == Generation::One
        && version == 2
        && let Some(Value::Table(plugins)) = table.get("plugins")
        && let Some(name) = plugins
            .keys()
            .find(|name| !name.starts_with("io.containerd.") || name.split('.').count() < 4)
    {
        return Err(
            ConfigError::new("a plugin has a short name, which belongs to version 1, in version 2")
                .key(tree::dotted(&["plugins", name])),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests;
