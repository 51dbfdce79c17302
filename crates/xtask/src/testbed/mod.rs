//! The test bed: a real single-node Kubernetes on the machine at hand, under one directory.

mod build;
mod certs;
mod cgroup;
mod config;
mod control_plane;
mod daemon;
mod down;
mod fake;
mod image;
mod machine;
mod node;
mod pack;
mod paths;
mod programs;
mod rke2;
mod status;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};

pub(crate) use build::hex;
use paths::Paths;

/// Something that the test bed needs and this machine lacks; `main` ends with 2 on it.
#[derive(Debug)]
pub(crate) struct Missing {
    what: String,
    hint: String,
}

impl Missing {
    pub(crate) fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            hint: hint.into(),
        }
    }

    /// What the reader can do about it.
    pub(crate) fn hint(&self) -> &str {
        &self.hint
    }
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Missing {}

#[derive(Args)]
pub(crate) struct TestbedArgs {
    /// Where everything that the bed writes lies [default: pitcrew/testbed in the user's cache directory]
    #[arg(long, global = true, env = "PITCREW_TESTBED", value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Programs and images as `pack` lays them out, instead of built ones [default: found beside this program]
    #[arg(long, global = true, env = "PITCREW_TESTBED_BIN", value_name = "DIR")]
    bin: Option<PathBuf>,

    #[command(subcommand)]
    command: TestbedCommand,
}

#[derive(Subcommand)]
enum TestbedCommand {
    /// Build the programs and images from the published Go modules, once
    Build,
    /// Start what does not run yet, wait for a Ready node, print the kubeconfig's path
    Up(UpArgs),
    /// Stop everything and see that nothing is left
    Down {
        /// Also remove the data: cluster, images, certificates, logs
        #[arg(long)]
        wipe: bool,
    },
    /// Say what runs; ends with 1 where something does not
    Status,
    /// Print the kubeconfig's path
    Kubeconfig,
    /// Run a command in the node's mount namespace, with kubectl, ctr and helm on the PATH
    Exec {
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<std::ffi::OsString>,
    },
    /// Print the path of one of the bed's programs, building what is not there
    Which(WhichArgs),
    /// Give the node the GPUs of a scenario: device nodes, libraries, what the kernel shows; refused beside a driver
    FakeGpus(FakeGpusArgs),
    /// Place what `fake-gpus` laid out (started by it, in the node's mount namespace)
    #[command(hide = true)]
    PlaceGpus,
    /// Give the node the face of an RKE2 agent (started by `up`, in the node's mount namespace)
    #[command(hide = true)]
    PlaceRke2(UpArgs),
    /// Make an image of programs over that with glibc, and import it
    Image(ImageArgs),
    /// Write the archive with which the bed starts on another machine
    Pack(PackArgs),
    /// Hold the node's mount namespace (started by `up`)
    #[command(hide = true)]
    HoldNode,
}

#[derive(Args)]
pub(crate) struct FakeGpusArgs {
    /// A scenario's name, or a file
    scenario: String,

    /// Changes to make to it first, a line of JSON each
    #[arg(long, value_name = "FILE")]
    changes: Option<PathBuf>,

    /// What stands for NVIDIA's management library [default: one that has no function]
    #[arg(long, value_name = "FILE")]
    nvml: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct ImageArgs {
    /// Its name, e.g. `localhost/pitcrew:1`
    name: String,

    /// A file and its path in the image; may be repeated
    #[arg(long = "file", value_name = "FILE=PATH", required = true)]
    files: Vec<String>,

    /// The archive, instead of importing it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// What a container runs
    #[arg(trailing_var_arg = true, default_value = "sh")]
    command: Vec<String>,
}

#[derive(Args)]
pub(crate) struct WhichArgs {
    /// The program, e.g. `containerd`
    name: String,
    /// The programs of which containerd
    #[arg(long, value_enum, default_value_t = Containerd::Current)]
    containerd: Containerd,
}

#[derive(Args)]
pub(crate) struct UpArgs {
    /// Which containerd the node runs
    #[arg(long, value_enum, default_value_t = Containerd::Current)]
    containerd: Containerd,
}

/// The containerds that the bed can run.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Containerd {
    /// containerd 2.2, configuration version 3
    #[value(name = "2.2")]
    Current,
    /// containerd 1.7, configuration version 2
    #[value(name = "1.7")]
    Old,
}

impl Containerd {
    /// The name as it is typed and shown.
    fn name(self) -> &'static str {
        match self {
            Self::Current => "2.2",
            Self::Old => "1.7",
        }
    }
}

#[derive(Args)]
pub(crate) struct PackArgs {
    /// Where the archive goes
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Another file to put in (executables land on the PATH of `exec`); may be repeated
    #[arg(long = "with", value_name = "FILE")]
    with: Vec<PathBuf>,

    /// Also put in containerd 1.7; the archive then comes in two parts
    #[arg(long)]
    old: bool,
}

/// Runs one subcommand; `Missing` where this machine lacks what it needs.
pub(crate) fn run(args: TestbedArgs) -> Result<()> {
    let paths = Paths::new(args.dir, args.bin)?;
    match args.command {
        TestbedCommand::Build => programs::provide(&paths).map(drop),
        TestbedCommand::Up(up) => bring_up(&paths, &up),
        TestbedCommand::Down { wipe } => down::run(&paths, wipe),
        TestbedCommand::Status => status::run(&paths),
        TestbedCommand::Kubeconfig => {
            println!("{}", paths.kubeconfig().display());
            Ok(())
        }
        TestbedCommand::Exec { command } => node::exec(&paths, &command),
        TestbedCommand::Which(args) => which(&paths, &args),
        TestbedCommand::FakeGpus(args) => fake::gpus(&paths, &args),
        TestbedCommand::PlaceGpus => fake::place(&paths),
        TestbedCommand::PlaceRke2(args) => rke2::place(&paths, args.containerd),
        TestbedCommand::Image(args) => make_image(&paths, &args),
        TestbedCommand::Pack(pack) => pack::run(&paths, &pack),
        TestbedCommand::HoldNode => node::hold(&paths),
    }
}

/// A program goes by its name, so that what is printed is a link of that name, as the running bed has it.
fn which(paths: &Paths, args: &WhichArgs) -> Result<()> {
    let dir = match args.containerd {
        Containerd::Current => paths.bin(),
        Containerd::Old => paths.bin17(),
    };
    let path = dir.join(&args.name);
    if !path.exists() {
        let programs = programs::provide(paths)?;
        let _lock = paths.lock()?;
        programs.link(paths)?;
    }
    if !path.exists() {
        return Err(Missing::new(
            format!("the test bed has no program `{}`", args.name),
            format!("{} holds what there is", dir.display()),
        )
        .into());
    }
    println!("{}", path.display());
    Ok(())
}

fn make_image(paths: &Paths, args: &ImageArgs) -> Result<()> {
    let mut files = Vec::new();
    for pair in &args.files {
        let Some((file, path)) = pair.split_once('=') else {
            bail!("`{pair}` is no FILE=PATH");
        };
        files.push((PathBuf::from(file), path.to_owned()));
    }
    let command: Vec<&str> = args.command.iter().map(String::as_str).collect();
    let out = args.out.clone().unwrap_or_else(|| paths.run("image.tar"));
    image::build(&args.name, &files, &command, &out)?;
    if args.out.is_some() {
        return Ok(());
    }
    let Some(holder) = node::holder(paths).process() else {
        return Err(Missing::new("the test bed is not up", "run `cargo xtask testbed up` first").into());
    };
    let running = std::fs::read_to_string(paths.run("containerd.version")).unwrap_or_default();
    let version = if running.trim() == Containerd::Old.name() {
        Containerd::Old
    } else {
        Containerd::Current
    };
    image::import(paths, &holder, version, &[out])
}

fn bring_up(paths: &Paths, args: &UpArgs) -> Result<()> {
    let begun = std::time::Instant::now();
    machine::check(paths)?;
    let programs = programs::provide(paths)?;
    let _lock = paths.lock()?;
    let begun_starting = std::time::Instant::now();
    programs.link(paths)?;
    certs::provide(paths)?;
    cgroup::provide()?;
    control_plane::up(paths)?;
    node::up(paths, args.containerd, &programs)?;
    eprintln!(
        "up: node Ready after {:.1} s ({:.1} s in all)",
        begun_starting.elapsed().as_secs_f32(),
        begun.elapsed().as_secs_f32()
    );
    println!("{}", paths.kubeconfig().display());
    Ok(())
}
