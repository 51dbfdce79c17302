//! `pitcrew cdi`: specifications that give containers their GPUs.

use std::path::{Path, PathBuf};

use pitcrew_cdi::directories::{self, Directories, Refusal};
use pitcrew_cdi::generate::{self, Naming, Options};
use pitcrew_cdi::text::{self, Encoding};
use pitcrew_cdi::{Spec, spec, write};
use pitcrew_cli::{
    CdiCommand, CdiGenerateArgs, CdiListArgs, CdiNaming, CdiValidateArgs, ExitStatus, Format, GlobalArgs,
};
use pitcrew_core::ports::HostFs;
use pitcrew_host::{HostRoots, Roots};

use super::check::facts::Node;
use crate::error::Error;
use crate::output::Output;
use crate::view::cdi as view;

pub(crate) fn run(
    command: CdiCommand,
    global: &GlobalArgs,
    output: &mut Output<'_>,
) -> Result<ExitStatus, Error> {
    match command {
        CdiCommand::Generate(args) => generate(args, global, output),
        CdiCommand::List(args) => list(&args, global, output),
        CdiCommand::Validate(args) => validate(&args, output),
    }
}

fn generate(
    args: CdiGenerateArgs,
    global: &GlobalArgs,
    output: &mut Output<'_>,
) -> Result<ExitStatus, Error> {
    if args.scenario.as_deref() == Some("list") {
        return super::gpus::imaginary::list(output);
    }
    let usual = if args.management {
        spec::MANAGEMENT_GPU
    } else {
        spec::GPU
    };
    let kind = args.kind.as_deref().unwrap_or(usual);
    let options = Options::new(kind, args.hook).map_err(Error::CdiKind)?;
    let options = Options {
        names: args.names.iter().map(|naming| naming_of(*naming)).collect(),
        all: !args.no_all,
        driver_root: args.driver_root,
        dev_root: args.dev_root,
        library_dirs: args.library_dirs,
        ldconfig: args.ldconfig,
        ..options
    };
    let node = Node::open(args.scenario.as_deref(), global)?;
    let gpus = node.gpus()?;
    let generated = if args.management {
        // It is for who finds out why the driver doesn't answer, too.
        generate::management(gpus.as_ref().ok(), &*node.fs, &options)?
    } else {
        generate::gpus(&gpus?, &*node.fs, &options)?
    };
    for remark in &generated.remarks {
        output.remark(&format!("left out: {remark}"))?;
    }
    if node.fs.kind(&options.hook).is_err() {
        output.remark(&format!(
            "`{}` is not on this node: a container with these devices would not start; `--hook` names another",
            options.hook.display()
        ))?;
    }
    let encoding = match output.format() {
        Format::Json => Encoding::Json,
        Format::Table | Format::Yaml => Encoding::Yaml,
    };
    if let Some(dir) = args.output_dir {
        put(&generated.spec, &dir, encoding, output)?;
    } else {
        let text = text::encode(&generated.spec, encoding);
        output.text(&text.map_err(|error| Error::Encode(error.to_string()))?)?;
    }
    Ok(if generated.remarks.is_empty() {
        ExitStatus::Fine
    } else {
        ExitStatus::Finding
    })
}

fn naming_of(naming: CdiNaming) -> Naming {
    match naming {
        CdiNaming::Index => Naming::Index,
        CdiNaming::TypeIndex => Naming::TypeIndex,
        CdiNaming::Uuid => Naming::Uuid,
    }
}

/// Writes the file, unless another one in the directory has the same devices.
fn put(spec: &Spec, dir: &Path, encoding: Encoding, output: &mut Output<'_>) -> Result<(), Error> {
    let name = write::file_name(spec, encoding).map_err(Error::CdiKind)?;
    let there = Directories::read(&this_machine(), &[&absolute(dir)]);
    for file in &there.files {
        let Ok(other) = &file.spec else { continue };
        let shared = other.kind == spec.kind
            && other
                .devices
                .iter()
                .any(|device| spec.devices.iter().any(|own| own.name == device.name));
        if shared && file.path.file_name().is_some_and(|other| other != name.as_str()) {
            let other = file.path.clone();
            return Err(Error::CdiConflict { other });
        }
    }
    let path = write::into_directory(spec, dir, encoding)?;
    output.remark(&format!("wrote `{}`", path.display()))
}

fn list(args: &CdiListArgs, global: &GlobalArgs, output: &mut Output<'_>) -> Result<ExitStatus, Error> {
    let fs = HostRoots::new(Roots::under(&global.root));
    let read = Directories::read(&fs, &args.dirs);
    let list = view::List::new(&read);
    match output.format() {
        Format::Table if list.is_empty() => {
            let dirs: Vec<String> = args
                .dirs
                .iter()
                .map(|dir| format!("`{}`", dir.display()))
                .collect();
            output.remark(&format!("no CDI specification in {}", dirs.join(" or ")))?;
            output.remark(
                "hint: `pitcrew cdi generate --output-dir /var/run/cdi` writes one of this machine's GPUs",
            )?;
        }
        Format::Table => output.text(&list.text(output.width()))?,
        Format::Json | Format::Yaml => output.document(&list)?,
    }
    Ok(if list.has_findings() {
        ExitStatus::Finding
    } else {
        ExitStatus::Fine
    })
}

fn validate(args: &CdiValidateArgs, output: &mut Output<'_>) -> Result<ExitStatus, Error> {
    let fs = this_machine();
    let mut files = Vec::new();
    for path in &args.paths {
        for file in files_at(&fs, path)? {
            files.push(judged(&fs, file)?);
        }
    }
    let verdicts = view::Verdicts::new(files);
    match output.format() {
        Format::Table => output.text(&verdicts.text())?,
        Format::Json | Format::Yaml => output.document(&verdicts)?,
    }
    if verdicts.is_empty() {
        output.remark("no file that ends in `.json` or `.yaml`")?;
    }
    Ok(if verdicts.all_valid() {
        ExitStatus::Fine
    } else {
        ExitStatus::Finding
    })
}

/// The file itself, or what container runtimes would read in a directory.
fn files_at(fs: &dyn HostFs, path: &Path) -> Result<Vec<PathBuf>, Error> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let names = fs.list(&absolute(path)).map_err(|source| Error::CdiRead {
        path: path.to_owned(),
        source,
    })?;
    let paths = names.iter().map(|name| path.join(name));
    Ok(paths
        .filter(|path| Encoding::of(path).is_some() && !path.is_dir())
        .collect())
}

fn judged(fs: &dyn HostFs, path: PathBuf) -> Result<view::Judged, Error> {
    match directories::read_file(fs, &absolute(&path)) {
        Err(Refusal::Read(source)) => Err(Error::CdiRead { path, source }),
        result => Ok(view::Judged::new(&path, result)),
    }
}

fn this_machine() -> HostRoots {
    HostRoots::new(Roots::under("/"))
}

/// Paths of a host are absolute; one that was typed counts from where the program runs.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
