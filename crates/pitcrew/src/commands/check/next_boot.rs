//! `pitcrew check --next-boot`: would this node come back?

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::chown;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use pitcrew_cli::{ExitStatus as OurStatus, Format};
use pitcrew_core::ports::HostFs;
use pitcrew_host::Host;
use pitcrew_host::containerd::next_boot::{ContainerdDump, DumpFile, Dumped, Verdict, plan, verify};

use crate::error::Error;
use crate::output::Output;
use crate::view::check::Source;
use crate::view::next_boot::{self as view, Document};

/// Who is asked what containerd makes of it.
pub(super) enum Containerd<'a> {
    /// The node's own, under this root.
    Under(&'a Path),
    /// Nobody, and why.
    Nobody(&'static str),
}

/// Plans, asks the node's containerd, and shows.
pub(super) fn show(
    source: &Source,
    host: &Host,
    fs: &dyn HostFs,
    containerd: &Containerd<'_>,
    output: &mut Output<'_>,
) -> Result<OurStatus, Error> {
    let Some(mut plan) = plan(host, fs) else {
        return nothing(source, host, output);
    };
    match containerd {
        Containerd::Under(root) => verify(&mut plan, host, fs, &NodeContainerd { root }),
        Containerd::Nobody(why) => verify(&mut plan, host, fs, &NotAsked(why)),
    }
    match output.format() {
        Format::Table => output.text(&view::text(source, &plan, output.width()))?,
        Format::Json | Format::Yaml => output.document(&Document::new(source, &plan))?,
    }
    Ok(match plan.verdict() {
        Verdict::ComesBack => OurStatus::Fine,
        Verdict::ComesBackWithout | Verdict::DoesNot => OurStatus::Finding,
        Verdict::CantTell => OurStatus::CouldNotTell,
    })
}

/// A node of which no containerd is known: nothing can be said of its next start.
fn nothing(source: &Source, host: &Host, output: &mut Output<'_>) -> Result<OurStatus, Error> {
    let why = host
        .containerd
        .failure()
        .unwrap_or("there is no containerd on this node");
    match output.format() {
        Format::Table => output.text(&view::nothing(why))?,
        Format::Json | Format::Yaml => output.document(&Document::nothing(source, why))?,
    }
    Ok(OurStatus::CouldNotTell)
}

/// The node's own containerd, run for `config dump`, which only reads and prints.
struct NodeContainerd<'a> {
    root: &'a Path,
}

/// An imaginary node has no containerd; this machine's must not answer in its place.
struct NotAsked(&'static str);

impl ContainerdDump for NotAsked {
    fn dump(&self, _: &Path, _: &[DumpFile]) -> io::Result<Dumped> {
        Err(io::Error::new(io::ErrorKind::Unsupported, self.0))
    }
}

/// It takes some hundredths of a second.
const DEADLINE: Duration = Duration::from_secs(10);
/// User and group of who owns nothing.
const NOBODY: u32 = 65534;
/// Far more than it prints.
const MAX_OUTPUT: u64 = 4 << 20;

impl ContainerdDump for NodeContainerd<'_> {
    fn dump(&self, binary: &Path, files: &[DumpFile]) -> io::Result<Dumped> {
        // Only its owner can look into it: drop-ins may hold logins.
        let dir = tempfile::Builder::new().prefix("pitcrew-next-boot-").tempdir()?;
        let as_nobody = self.is_foreign() && rustix::process::geteuid().is_root();
        if as_nobody {
            chown(dir.path(), Some(NOBODY), Some(NOBODY))?;
        }
        for file in files {
            let path = dir.path().join(&file.name);
            std::fs::write(&path, &file.text)?;
            if as_nobody {
                chown(&path, Some(NOBODY), Some(NOBODY))?;
            }
        }
        let first = files.first().map(|file| file.name.as_str()).unwrap_or_default();
        let (stdout, stderr) = (dir.path().join("stdout"), dir.path().join("stderr"));
        let program = self.real(binary)?;
        is_program(&program)?;
        let mut command = Command::new(program);
        // K3s's is one binary for many programs, which goes by its name.
        command
            .arg0("containerd")
            .arg("--config")
            .arg(dir.path().join(first))
            .args(["config", "dump"])
            .current_dir(dir.path())
            .env_clear()
            .stdin(Stdio::null())
            .stdout(File::create(&stdout)?)
            .stderr(File::create(&stderr)?);
        let status = if as_nobody {
            command.uid(NOBODY).gid(NOBODY);
            without_new_privileges(|| within(&mut command, DEADLINE)).map_err(|error| match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    let why = format!("as user {NOBODY}, as which another root's programs are run: {error}");
                    io::Error::new(error.kind(), why)
                }
                _ => error,
            })?
        } else {
            within(&mut command, DEADLINE)?
        };
        let stderr = text(&stderr)?;
        if let Some(why) = not_asked(status, &stderr) {
            return Err(io::Error::other(why));
        }
        Ok(Dumped {
            success: status.success(),
            stdout: text(&stdout)?,
            stderr,
        })
    }
}

impl NodeContainerd<'_> {
    /// True for another root than the machine's: what lies there was perhaps not put there by this machine's root.
    fn is_foreign(&self) -> bool {
        self.root
            .canonicalize()
            .map_or(true, |root| root != Path::new("/"))
    }

    /// Absolute: it is run in another directory.
    fn real(&self, binary: &Path) -> io::Result<PathBuf> {
        std::path::absolute(self.root.join(binary.strip_prefix("/").unwrap_or(binary)))
    }
}

/// Does this where no program that is started gains rights, as one with a setuid bit would. The kernel keeps that for
/// each thread, for ever: so a thread is made for it.
fn without_new_privileges<T: Send>(act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, || {
            rustix::thread::set_no_new_privs(true)?;
            act()
        })?;
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread that was to run it has failed")))
    })
}

/// The C library gives a file that the kernel does not run to a shell, whose words would be taken for containerd's.
fn is_program(path: &Path) -> io::Result<()> {
    let mut magic = Vec::new();
    File::open(path)?.take(4).read_to_end(&mut magic)?;
    if magic == b"\x7fELF" || magic.starts_with(b"#!") {
        return Ok(());
    }
    Err(rustix::io::Errno::NOEXEC.into())
}

/// Why an end says nothing of the configuration: containerd itself did not get as far as to read it.
fn not_asked(status: ExitStatus, stderr: &str) -> Option<String> {
    if let Some(signal) = status.signal() {
        return Some(format!("signal {signal} ended it"));
    }
    // The dynamic loader's words, of a containerd of another system or of one whose libraries are under another root.
    let loader = ["error while loading shared libraries", "not found (required by"];
    let line = stderr
        .lines()
        .find(|line| loader.iter().any(|words| line.contains(words)))?;
    (!status.success()).then(|| line.trim().chars().take(200).collect())
}

fn text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_OUTPUT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The usual reasons without the system's number.
fn plain(error: io::Error) -> io::Error {
    let reason = match error.kind() {
        io::ErrorKind::PermissionDenied => "it may not be executed",
        io::ErrorKind::NotFound => "it is not there",
        _ => return error,
    };
    io::Error::new(error.kind(), reason)
}

/// Runs a command to its end; one that takes longer is killed.
fn within(command: &mut Command, deadline: Duration) -> io::Result<ExitStatus> {
    let mut child = command.spawn().map_err(plain)?;
    let end = Instant::now() + deadline;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= end {
            // It may have ended just now; what counts is that it is gone.
            let _ = child.kill();
            child.wait()?;
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("it did not end within {} s", deadline.as_secs_f32()),
            ));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn program(text: &str) -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        open_to_all(root.path());
        let path = root.path().join("containerd");
        std::fs::write(&path, text).unwrap();
        open_to_all(&path);
        (root, PathBuf::from("/containerd"))
    }

    fn open_to_all(path: &Path) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn the_program_of_another_root_has_no_rights_of_ours() {
        if !rustix::process::geteuid().is_root() {
            // It has the caller's rights then, who has none to lose.
            return;
        }
        let script = "#!/bin/sh\nid -u; id -g; id -G; grep NoNewPrivs /proc/self/status\n";
        let (root, path) = program(script);
        let node = NodeContainerd { root: root.path() };
        let dumped = node.dump(&path, &files()).unwrap();
        assert_eq!(
            dumped.stdout, "65534\n65534\n65534\nNoNewPrivs:\t1\n",
            "{dumped:?}"
        );
        std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let closed = node.dump(&path, &files()).unwrap_err().to_string();
        assert!(closed.starts_with("as user 65534"), "{closed}");
        assert!(!NodeContainerd { root: Path::new("/") }.is_foreign());
    }

    fn files() -> Vec<DumpFile> {
        ["000.toml", "001.toml"]
            .map(|name| DumpFile {
                name: name.to_owned(),
                text: format!("# {name}\n"),
            })
            .to_vec()
    }

    #[test]
    fn it_is_given_the_files_and_its_words_come_back() {
        let (root, path) = program("#!/bin/sh\ncat \"$2\" 001.toml; echo \"$3 $4\"; echo oh >&2; exit 1\n");
        let dumped = NodeContainerd { root: root.path() }
            .dump(&path, &files())
            .unwrap();
        assert_eq!(
            dumped,
            Dumped {
                success: false,
                stdout: "# 000.toml\n# 001.toml\nconfig dump\n".to_owned(),
                stderr: "oh\n".to_owned(),
            }
        );
    }

    #[test]
    fn one_that_does_not_get_as_far_as_the_configuration_says_nothing_of_it() {
        let said = |script: &str| {
            let (root, path) = program(script);
            let dumped = NodeContainerd { root: root.path() }.dump(&path, &files());
            dumped.unwrap_err().to_string()
        };
        assert_eq!(said("#!/bin/sh\nkill -9 $$\n"), "signal 9 ended it");
        let loader =
            "containerd: error while loading shared libraries: libseccomp.so.2: cannot open shared object";
        assert_eq!(
            said(&format!("#!/bin/sh\necho '{loader}' >&2; exit 127\n")),
            loader
        );
    }

    #[test]
    fn a_root_that_is_given_relative_to_the_working_directory_is_found() {
        let here = std::env::current_dir().unwrap();
        let root = tempfile::tempdir_in(&here).unwrap();
        open_to_all(root.path());
        let path = root.path().join("containerd");
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        open_to_all(&path);
        let relative = root.path().strip_prefix(&here).unwrap();
        let dumped = NodeContainerd { root: relative }.dump(Path::new("/containerd"), &files());
        assert!(dumped.unwrap().success);
    }

    #[test]
    fn one_that_does_not_end_is_ended() {
        let mut command = Command::new("sleep");
        let error = within(command.arg("60"), Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn one_that_can_not_be_run_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let missing = NodeContainerd { root: root.path() }.dump(Path::new("/containerd"), &files());
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
        let (root, path) = program("no program at all");
        assert!(
            NodeContainerd { root: root.path() }
                .dump(&path, &files())
                .is_err()
        );
    }
}
