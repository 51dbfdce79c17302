//! What only the kernel or systemd can do, on this machine.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use pitcrew_agent::deps::{Process, System};
use rustix::fs::{CWD, FileType, Mode, chmod, makedev, mknodat};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::service;

/// Where programs of a host are.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long a module may take to load, and a program to run: a driver without its GPUs can take minutes.
pub(super) const PATIENCE: Duration = Duration::from_mins(2);
/// How long a unit may take to restart: RKE2 starts its images anew.
const RESTART: Duration = Duration::from_mins(15);
/// How much of what a program complains of is told.
const MOST: usize = 500;

/// The host whose root is at a directory.
#[derive(Debug, Clone)]
pub(super) struct Host {
    root: PathBuf,
}

impl Host {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Where the host's root is.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// A program of the host, with the host's root as its own.
    pub(super) fn command(&self, program: &Path, arguments: &[String], env: &[(String, String)]) -> Command {
        let mut command = if self.root == Path::new("/") {
            let mut command = Command::new(program);
            command.args(arguments);
            command
        } else {
            let mut command = Command::new("/proc/self/exe");
            let words: [OsString; 4] = [
                "agent".into(),
                "in-root".into(),
                self.root.clone().into(),
                program.into(),
            ];
            command.args(words).args(arguments);
            command
        };
        // Nothing of a pod's environment means anything on the host.
        command.env_clear().env("PATH", PATH);
        command.envs(env.iter().map(|(key, value)| (key, value)));
        command.kill_on_drop(true);
        command
    }

    /// Runs it to its end; its standard output.
    pub(super) async fn finish(
        &self,
        mut command: Command,
        input: &str,
        patience: Duration,
    ) -> io::Result<String> {
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped());
        command.stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let stdin = child.stdin.take();
        let feed = async {
            if let Some(mut stdin) = stdin {
                // Who doesn't read it has no need of it.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
        };
        let ended = tokio::time::timeout(patience, async {
            let ((), output) = tokio::join!(feed, child.wait_with_output());
            output
        });
        let output = ended.await.map_err(|_| {
            let text = format!("it has not ended within {} s", patience.as_secs());
            io::Error::new(io::ErrorKind::TimedOut, text)
        })??;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        let complaint: String = complaint.trim().chars().take(MOST).collect();
        let text = match complaint.as_str() {
            "" => format!("it ended with {}", output.status),
            complaint => format!("it ended with {}: {complaint}", output.status),
        };
        Err(io::Error::other(text))
    }

    pub(super) async fn tool(&self, name: &str, arguments: &[&str], patience: Duration) -> io::Result<()> {
        let arguments: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
        let command = self.command(Path::new(name), &arguments, &[]);
        let result = self.finish(command, "", patience).await;
        let tell = |error: io::Error| {
            let text = format!("`{name} {}`: {error}", arguments.join(" "));
            io::Error::new(error.kind(), text)
        };
        result.map(|_| ()).map_err(tell)
    }
}

impl System for Host {
    fn load_module(&self, name: &str) -> BoxFuture<'_, io::Result<()>> {
        let name = name.to_owned();
        // The host's own, which knows its options, aliases and what is blacklisted.
        async move { self.tool("modprobe", &["--", &name], PATIENCE).await }.boxed()
    }

    fn make_char_device(&self, path: &Path, major: u32, minor: u32) -> io::Result<()> {
        let path = self.root.join(path.strip_prefix("/").unwrap_or(path));
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let mode = Mode::from_raw_mode(0o666);
        mknodat(CWD, &path, FileType::CharacterDevice, mode, makedev(major, minor))?;
        // The mode that it is made with is subject to the umask.
        chmod(&path, mode)?;
        Ok(())
    }

    fn restart_unit<'a>(&'a self, unit: &'a str) -> BoxFuture<'a, io::Result<()>> {
        // It waits until the unit is active, or has failed.
        async move { self.tool("systemctl", &["restart", "--", unit], RESTART).await }.boxed()
    }

    fn start<'a>(
        &'a self,
        name: &'a str,
        program: &'a Path,
        arguments: &'a [String],
        env: &'a [(String, String)],
    ) -> BoxFuture<'a, io::Result<Box<dyn Process>>> {
        service::start(self, name, program, arguments, env).boxed()
    }

    fn find<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Option<Box<dyn Process>>>> {
        service::find(self, name).boxed()
    }

    fn run<'a>(
        &'a self,
        program: &'a Path,
        arguments: &'a [String],
        env: &'a [(String, String)],
        input: &'a str,
    ) -> BoxFuture<'a, io::Result<String>> {
        let command = self.command(program, arguments, env);
        async move { self.finish(command, input, PATIENCE).await }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_of_the_host_is_given_its_input_and_nothing_of_our_environment() {
        let host = Host::new(Path::new("/"));
        let env = [("GIVEN".to_owned(), "yes".to_owned())];
        let arguments = ["-c".to_owned(), "cat; env | sort".to_owned()];
        let output = host.run(Path::new("/bin/sh"), &arguments, &env, "input\n").await;
        let output = output.unwrap();
        assert!(output.starts_with("input\n"), "{output}");
        assert!(output.contains("GIVEN=yes"), "{output}");
        assert!(!output.contains("CARGO"), "{output}");
    }

    #[tokio::test]
    async fn a_program_that_fails_is_told_with_its_complaint() {
        let host = Host::new(Path::new("/"));
        let arguments = ["-c".to_owned(), "echo no such thing >&2; exit 3".to_owned()];
        let error = host
            .run(Path::new("/bin/sh"), &arguments, &[], "")
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "it ended with exit status: 3: no such thing");
        let missing = host
            .run(Path::new("/bin/is-not-there"), &[], &[], "")
            .await
            .unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
