//! Imaginary GPUs behind the mock of NVIDIA's library, and NVIDIA's own Python client of it.
//!
//! `cargo xtask test` builds the mock and installs the client, and says where both are.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::pitcrew;

/// A path that `cargo xtask test` passes on.
///
/// # Panics
/// Where the tests were not started by it.
pub fn given(variable: &str) -> PathBuf {
    let missing = format!("{variable} is not set: run these tests with `cargo xtask test`");
    std::env::var_os(variable).map(PathBuf::from).expect(&missing)
}

/// The mock as it was built.
///
/// # Panics
/// Where the tests were not started by `cargo xtask test`.
pub fn library() -> PathBuf {
    given("PITCREW_NVML_MOCK")
}

/// An imaginary node that programs find where NVIDIA's library would be.
pub struct Node {
    scenario: String,
    dir: TempDir,
}

impl Node {
    /// A node of this scenario: a built-in's name or a file.
    ///
    /// # Panics
    /// Where its directory can't be made.
    pub fn new(scenario: &str) -> Self {
        let dir = TempDir::new().expect("a directory can be made");
        let link = dir.path().join("libnvidia-ml.so.1");
        std::os::unix::fs::symlink(library(), link).expect("a link can be made");
        Self {
            scenario: scenario.to_owned(),
            dir,
        }
    }

    /// A node of a scenario that a test writes.
    ///
    /// # Panics
    /// Where the file can't be written.
    pub fn written(yaml: &str) -> Self {
        let mut node = Self::new("");
        let path = node.dir.path().join("scenario.yaml");
        std::fs::write(&path, yaml).expect("the scenario can be written");
        node.scenario = path.display().to_string();
        node
    }

    /// The library, under the name that programs load.
    pub fn library(&self) -> PathBuf {
        self.dir.path().join("libnvidia-ml.so.1")
    }

    /// The file of changes, which may not be there yet.
    pub fn changes(&self) -> PathBuf {
        self.dir.path().join("changes.jsonl")
    }

    /// Makes something happen, for all programs that have loaded the library.
    ///
    /// # Panics
    /// Where it can't be written down.
    pub fn change(&self, change: &Value) {
        let file = OpenOptions::new().create(true).append(true).open(self.changes());
        // One write, so that nobody reads half a line.
        file.and_then(|mut file| file.write_all(format!("{change}\n").as_bytes()))
            .expect("the change can be written");
    }

    /// A program that will find this node.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env("LD_LIBRARY_PATH", self.dir.path())
            .env("PITCREW_SCENARIO", &self.scenario)
            .env("PITCREW_SCENARIO_CHANGES", self.changes());
        command
    }

    /// What `pitcrew gpus` shows of this node, asked through the library.
    ///
    /// # Panics
    /// Where it says nothing.
    pub fn shown_by_pitcrew(&self) -> Value {
        let mut command = self.command(&pitcrew());
        command.args(["gpus", "-o", "json", "--nvml"]).arg(self.library());
        let outcome = crate::run(command, "");
        let shown = serde_json::from_str(&outcome.stdout).ok();
        assert!(shown.is_some(), "it shows JSON: {outcome:#?}");
        shown.unwrap_or_default()
    }

    /// NVIDIA's own client, in a process of its own.
    ///
    /// # Panics
    /// Where it can't be started or says that it isn't ready.
    pub fn client(&self) -> Client {
        let (client, first) = self.try_client();
        assert_eq!(first, serde_json::json!({"ready": true}), "{}", self.scenario);
        client
    }

    /// The client, and what it says first: that it is ready, or why not.
    ///
    /// # Panics
    /// Where it can't be started.
    pub fn try_client(&self) -> (Client, Value) {
        let mut command = self.command(Path::new("python3"));
        command
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("python/read_all.py"))
            .env("PYTHONPATH", given("PITCREW_PYTHONPATH"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("python3 can be started");
        let mut client = Client {
            input: child.stdin.take(),
            output: BufReader::new(child.stdout.take().expect("its output is piped")),
            child,
        };
        let first = client.answer();
        (client, first)
    }
}

/// NVIDIA's client, waiting for commands; see `python/read_all.py`.
pub struct Client {
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    child: Child,
}

impl Client {
    /// Gives a command and returns the answer.
    ///
    /// # Panics
    /// Where the client has ended.
    pub fn ask(&mut self, command: &str) -> Value {
        self.tell(command);
        self.answer()
    }

    /// Gives a command without waiting for the answer.
    ///
    /// # Panics
    /// Where the client has ended.
    pub fn tell(&mut self, command: &str) {
        let input = self.input.as_mut().expect("the client was not ended");
        writeln!(input, "{command}").expect("the client takes commands");
    }

    /// The next answer.
    ///
    /// # Panics
    /// Where there is none, with what it wrote on standard error.
    pub fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.output
            .read_line(&mut line)
            .expect("the client's output can be read");
        let answer = serde_json::from_str(&line).ok();
        assert!(answer.is_some(), "no answer but `{line}`: {}", self.errors());
        answer.unwrap_or_default()
    }

    /// Ends it, and returns what it wrote on standard error.
    pub fn errors(&mut self) -> String {
        drop(self.input.take());
        let errors = self
            .child
            .stderr
            .take()
            .and_then(|pipe| std::io::read_to_string(pipe).ok());
        errors.unwrap_or_default()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It may hang in an imaginary driver; that it has ended already is no error either.
        let _ended = self.child.kill();
        let _waited = self.child.wait();
    }
}
