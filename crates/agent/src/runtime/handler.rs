//! The handler `nvidia` on a containerd that nobody renders a configuration for, as kubeadm has it: only where its owner
//! asks for it, as nothing else here needs it.
//!
//! With containerd 2 that is a drop-in of our own, and a line in the main file where that imports none; with 1.7, which
//! replaces a plugin's whole section by that of a drop-in, tables at the end of the main file. [`plan`] decides (pure) and
//! reads what would come of it as containerd does; [`rehearse`] has the node's own containerd read both, what is there and
//! what would be, and takes no other difference than the handler; [`steps`] then writes. All of it is in the list of what
//! was written, and [`taken_back`] is the file without it.
//!
//! containerd reads its configuration when it starts. [`Record`] says during which of its runs the file was changed.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use pitcrew_core::ports::{FileKind, HostFs};
use pitcrew_host::Host;
use pitcrew_host::containerd::edit::{self, HandlerTable};
use pitcrew_host::containerd::{
    ConfigError, Effective, Generation, effective, next_boot, parse, parse_table,
};
use pitcrew_host::facts::{Containerd, ContainerdConfig};
use serde::{Deserialize, Serialize};

use super::install::{BIN, Entry, Kind, MANIFEST, Manifest, Step, WRAPPER};
use super::tier::{HANDLER, is_supervised};
use crate::deps::System;

mod overlay;

use overlay::Overlay;

/// Our drop-in, beside the main file.
const DROP_IN: &str = "conf.d/99-pitcrew.toml";
/// What the main file imports: a pattern, since containerd does not start where a file by name is gone, and one that fits
/// nothing but ours, so that no other file comes into force by it.
const IMPORT: &str = "conf.d/99-pitcrew*.toml";
/// Where containerd's run is written down during which its configuration was changed, in our directory.
pub const RECORD: &str = "containerd.json";
/// Where systemd tells one run of a unit from another: links, by unit.
const INVOCATIONS: &str = "/run/systemd/units";
/// Where copies of the configuration lie while containerd is asked. They may hold logins, and are gone after a reboot.
const COPIES: &str = "/run";

/// What is to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Files, in the order in which they are written.
    pub edits: Vec<Edit>,
    /// Texts that containerd reads now, the main file's first.
    before: Vec<String>,
    /// Texts that it would read.
    after: Vec<String>,
    /// containerd's own program.
    containerd: PathBuf,
    /// The program of the handler.
    binary: PathBuf,
}

/// One file of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// Which, on the host.
    pub path: PathBuf,
    /// Its whole text as it was read; `None` where there was no such file.
    pub was: Option<String>,
    /// Its whole text.
    pub text: String,
    /// [`Kind::File`] where it is ours, [`Kind::Piece`] where a piece of it is.
    pub kind: Kind,
}

/// Why containerd's configuration stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// RKE2 and K3s.
    #[error(
        "this node's supervisor writes containerd's configuration, and makes the handler of what it finds by itself"
    )]
    Supervised,
    /// There is none, or its facts can't be had.
    #[error("{0}")]
    Unknown(String),
    /// There is a handler of that name.
    #[error("containerd has a handler `{HANDLER}` that is `{}`, which stays", .0.display())]
    Theirs(PathBuf),
    /// CRI's section has another shape there, and containerd 2 ignores it.
    #[error("`{}` is of version 1: write it anew with `containerd config migrate`, and restart containerd", .0.display())]
    VersionOne(PathBuf),
    /// containerd 1 drops its own default runtime where a file names any.
    #[error(
        "`{}` names no runtime, and containerd 1.7 forgets its own where one is added: write a whole one with \
         `containerd config default`, and restart containerd",
        .0.display()
    )]
    NoRuntime(PathBuf),
    /// The file can't be read or changed.
    #[error("containerd's configuration can't be changed: {0}; add the handler `{HANDLER}` by hand")]
    File(String),
    /// The node's own containerd doesn't take it.
    #[error(
        "containerd's configuration stays as it is, as the node's own containerd does not take what would come of it: {0}"
    )]
    Rehearsal(String),
}

impl From<ConfigError> for Refused {
    fn from(error: ConfigError) -> Self {
        Self::File(error.to_string())
    }
}

/// The program that containerd's configuration names: a link of ours that stays while versions come and go.
pub fn binary(home: &Path) -> PathBuf {
    home.join(BIN).join(WRAPPER)
}

/// What is to be changed so that containerd has the handler, with this program; `None` where it has.
///
/// # Errors
/// Where it can't be, or shouldn't.
pub fn plan(fs: &dyn HostFs, host: &Host, binary: &Path) -> Result<Option<Change>, Refused> {
    if is_supervised(host) {
        return Err(Refused::Supervised);
    }
    let containerd = host.containerd.value().ok_or_else(|| {
        let why = host
            .containerd
            .failure()
            .unwrap_or("there is no containerd on this node");
        Refused::Unknown(why.to_owned())
    })?;
    let main = &containerd.config_path;
    let text = read(fs, main)?;
    let generation = generation(containerd, text.as_deref())?;
    let program = containerd.binary.value().cloned();
    let program = program.ok_or_else(|| Refused::Unknown("containerd's program was not found".to_owned()))?;
    let was = text;
    let text = was.clone().unwrap_or_default();
    let is_blank = text.trim().is_empty();
    // One that says nothing, or isn't there, leaves containerd its defaults, which are those of its newest version.
    let nothing = if is_blank {
        let text = format!("version = {}\n", generation.config_version());
        BTreeMap::from([(main.clone(), text)])
    } else {
        BTreeMap::new()
    };
    let there = Overlay::new(fs, nothing);
    let now = effective(&there, main, generation)?;
    if let Some((_, theirs)) = now.config.handlers.iter().find(|(name, _)| name == HANDLER) {
        return if Path::new(theirs) == binary {
            Ok(None)
        } else {
            Err(Refused::Theirs(theirs.into()))
        };
    }
    let version = now.config.version;
    if version < 2 {
        return Err(Refused::VersionOne(main.clone()));
    }
    let model = now.config.default_handler.as_deref().unwrap_or("runc");
    let model = edit::runtime(&now.table, version, model);
    // Measured with `config dump`; containerd 2 keeps it.
    if generation == Generation::One && model.is_none() {
        return Err(Refused::NoRuntime(main.clone()));
    }
    let handler = HandlerTable::like(version, HANDLER, model, binary);
    let mut refused = None;
    for edits in candidates(generation, main, was.as_deref(), version, &handler)? {
        let files = edits.iter().map(|edit| (edit.path.clone(), edit.text.clone()));
        let mut files: BTreeMap<PathBuf, String> = files.collect();
        if is_blank {
            files.entry(main.clone()).or_default();
        }
        let changed = Overlay::new(fs, files);
        match effective(&changed, main, generation) {
            Ok(next) if is_as_wanted(&now.config, &next.config, binary) => {
                return Ok(Some(Change {
                    edits,
                    before: texts(&there, &now)?,
                    after: texts(&changed, &next)?,
                    containerd: program,
                    binary: binary.to_owned(),
                }));
            }
            Ok(_) => {}
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.map_or_else(
        || Refused::File("another file that it imports would take the handler away again".to_owned()),
        Refused::from,
    ))
}

/// Ways to do it, the one that touches least first.
fn candidates(
    generation: Generation,
    main: &Path,
    was: Option<&str>,
    version: u32,
    handler: &HandlerTable,
) -> Result<Vec<Vec<Edit>>, Refused> {
    let text = was.unwrap_or_default();
    let piece = |text: String| Edit {
        path: main.to_owned(),
        was: was.map(str::to_owned),
        text,
        kind: Kind::Piece,
    };
    if generation == Generation::One {
        return Ok(vec![vec![piece(handler.appended(text)?)]]);
    }
    let drop_in = Edit {
        path: beside(main, DROP_IN),
        was: None,
        text: handler.drop_in(),
        kind: Kind::File,
    };
    let import = beside(main, IMPORT).to_string_lossy().into_owned();
    let import = edit::with_import(text, version, &import)?;
    Ok(vec![vec![drop_in.clone()], vec![drop_in, piece(import)]])
}

fn beside(main: &Path, name: &str) -> PathBuf {
    main.parent().unwrap_or(Path::new("/")).join(name)
}

fn read(fs: &dyn HostFs, path: &Path) -> Result<Option<String>, Refused> {
    match fs.read(path) {
        Ok(bytes) => String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| Refused::File(format!("`{}` is not UTF-8", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Refused::File(format!(
            "`{}` can't be read: {error}",
            path.display()
        ))),
    }
}

/// By containerd's version, or by a configuration that only the newer one reads.
fn generation(containerd: &Containerd, text: Option<&str>) -> Result<Generation, Refused> {
    if let Some(version) = containerd.version.value() {
        return Ok(Generation::of(version));
    }
    match text.and_then(|text| parse(text).ok()) {
        Some(config) if config.version >= 3 => Ok(Generation::Two),
        _ => Err(Refused::Unknown(format!(
            "containerd's version can't be told: {}",
            containerd.version.failure().unwrap_or("it does not say")
        ))),
    }
}

/// Texts of all files, in the order in which they are merged.
fn texts(fs: &dyn HostFs, of: &Effective) -> Result<Vec<String>, Refused> {
    let text = |path: &PathBuf| Ok(read(fs, path)?.unwrap_or_default());
    of.files.iter().map(|file| text(&file.path)).collect()
}

/// True where the handler is the only difference.
fn is_as_wanted(now: &ContainerdConfig, next: &ContainerdConfig, binary: &Path) -> bool {
    let mut handlers = next.handlers.clone();
    let ours = (HANDLER.to_owned(), binary.to_string_lossy().into_owned());
    let has_it = handlers.contains(&ours);
    handlers.retain(|(name, _)| name != HANDLER);
    let mut before = now.handlers.clone();
    handlers.sort();
    before.sort();
    has_it && handlers == before && now.default_handler == next.default_handler
}

/// Has the node's own containerd read what is there, and what would be. Nothing is changed.
///
/// # Errors
/// Where it doesn't take it, or finds another difference than the handler, or can't be asked.
pub async fn rehearse(change: &Change, root: &Path, system: &dyn System) -> Result<(), Refused> {
    let before = dumped(&change.before, change, root, system).await?;
    let after = dumped(&change.after, change, root, system).await?;
    let finds = parse(&after)?;
    let wanted = (HANDLER.to_owned(), change.binary.to_string_lossy().into_owned());
    if !finds.handlers.contains(&wanted) {
        return Err(Refused::Rehearsal(format!(
            "it finds no handler `{HANDLER}` in it"
        )));
    }
    let rest = |text: &str| Ok::<_, ConfigError>(edit::without_handler(parse_table(text)?, HANDLER));
    if rest(&before)? != rest(&after)? {
        return Err(Refused::Rehearsal(
            "it finds more changed than the handler".to_owned(),
        ));
    }
    Ok(())
}

/// What `containerd config dump` makes of these texts.
async fn dumped(
    texts: &[String],
    change: &Change,
    root: &Path,
    system: &dyn System,
) -> Result<String, Refused> {
    let place = |error: io::Error| Refused::Rehearsal(format!("a copy can't be made in `{COPIES}`: {error}"));
    let below = super::install::followed(root, Path::new(COPIES)).map_err(place)?;
    // Only its owner can look into it.
    let mut copies = tempfile::Builder::new();
    copies.prefix("pitcrew-containerd-");
    let copies = copies.tempdir_in(&below).map_err(place)?;
    let name = copies.path().file_name().unwrap_or_default();
    let on_host = Path::new(COPIES).join(name);
    let files = next_boot::copies(texts);
    for file in &files {
        std::fs::write(copies.path().join(&file.name), &file.text).map_err(place)?;
    }
    let main = files.first().map(|file| file.name.as_str()).unwrap_or_default();
    let arguments = [
        "--config".to_owned(),
        on_host.join(main).display().to_string(),
        "config".to_owned(),
        "dump".to_owned(),
    ];
    let said = system.run(&change.containerd, &arguments, &[], "").await;
    said.map_err(|error| Refused::Rehearsal(error.to_string()))
}

/// During which run of containerd its configuration was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The unit.
    pub unit: String,
    /// systemd's id of the run; `None` where there is none.
    pub invocation: Option<String>,
}

impl Record {
    /// Now.
    pub fn now(fs: &dyn HostFs, host: &Host) -> Self {
        let unit = host.distribution.value().and_then(|found| found.unit.value());
        let unit = unit.map_or("containerd", String::as_str).to_owned();
        Self {
            invocation: invocation(fs, &unit),
            unit,
        }
    }

    /// What was written down in our directory; `None` for nothing, or nothing that can be read.
    pub fn written(fs: &dyn HostFs, home: &Path) -> Option<Self> {
        serde_json::from_slice(&fs.read(&home.join(RECORD)).ok()?).ok()
    }

    /// Whether containerd has read its configuration since.
    pub fn loaded(&self, fs: &dyn HostFs) -> Loaded {
        match (&self.invocation, invocation(fs, &self.unit)) {
            (Some(then), Some(now)) if *then == now => Loaded::NotYet,
            (Some(_), Some(_)) => Loaded::Yes,
            _ => Loaded::Unknown,
        }
    }

    /// Writes it down.
    pub fn step(&self, home: &Path) -> Step {
        Step::write(
            &home.join(RECORD),
            serde_json::to_string(self).unwrap_or_default(),
        )
    }
}

/// Whether containerd has read its configuration since it was changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Loaded {
    /// It has, or nothing was changed.
    #[default]
    Yes,
    /// It runs as it did before.
    NotYet,
    /// Its runs can't be told from one another.
    Unknown,
}

/// Of what was written down in our directory.
pub fn loaded(fs: &dyn HostFs, home: &Path) -> Loaded {
    Record::written(fs, home).map_or(Loaded::Yes, |record| record.loaded(fs))
}

fn invocation(fs: &dyn HostFs, unit: &str) -> Option<String> {
    let unit = unit.strip_suffix(".service").unwrap_or(unit);
    let link = Path::new(INVOCATIONS).join(format!("invocation:{unit}.service"));
    match fs.kind(&link).ok()? {
        FileKind::Link(target) => Some(target.to_string_lossy().into_owned()),
        _ => None,
    }
}

/// What is to do: the list first, then what it names. The wrapper is there already.
pub fn steps(
    fs: &dyn HostFs,
    manifest: &Manifest,
    home: &Path,
    change: &Change,
    record: &Record,
) -> Vec<Step> {
    let mut manifest = manifest.clone();
    let mut dirs = Vec::new();
    for edit in &change.edits {
        let dir = edit.path.parent().filter(|dir| fs.kind(dir).is_err());
        if let Some(dir) = dir {
            manifest.add(Kind::Directory, dir);
            dirs.push(Step::make_dir(dir));
        }
        manifest.add(edit.kind, &edit.path);
    }
    let list = Step::write(&home.join(MANIFEST), manifest.text());
    let edits = change.edits.iter().map(|edit| match edit.kind {
        Kind::Piece => Step::edit(&edit.path, edit.was.clone(), edit.text.clone()),
        Kind::File | Kind::Directory | Kind::Link => Step::write(&edit.path, edit.text.clone()),
    });
    [list, record.step(home)]
        .into_iter()
        .chain(dirs)
        .chain(edits)
        .collect()
}

/// Whether the list has something of it.
pub fn is_written(manifest: &Manifest) -> bool {
    manifest.entries().iter().any(is_ours)
}

/// True for what containerd's configuration is made of: a piece of its main file, or the drop-in.
pub(super) fn is_ours(entry: &Entry) -> bool {
    match entry.kind {
        Kind::Piece => true,
        Kind::File => entry.path.ends_with(DROP_IN),
        Kind::Directory | Kind::Link => false,
    }
}

/// A file of containerd's without what is ours in it.
pub fn taken_back(path: &Path, text: &str, home: &Path) -> String {
    let import = beside(path, IMPORT).to_string_lossy().into_owned();
    edit::without(text, &import, HANDLER, &binary(home))
}

#[cfg(test)]
mod tests;
