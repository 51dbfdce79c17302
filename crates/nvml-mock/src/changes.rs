//! The file of changes that all processes of one imaginary node share.
//!
//! It only grows: a JSON `Change` on each line. Whoever steers appends to it, and so do processes that change
//! something through NVML. As everybody applies the same lines in the same order, everybody sees the same node, down
//! to the UUIDs of MIG devices.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;

use pitcrew_scenario::{Change, ChangeError, Machine};
use rustix::fs::{FlockOperation, flock};

use crate::world::say;

/// The file, and how far it has been read.
pub(crate) struct Changes {
    path: PathBuf,
    offset: u64,
    lines: u64,
}

/// A change was not made.
pub(crate) enum Refused {
    /// The node can't.
    Change(ChangeError),
    /// Others could not be told.
    File(io::Error),
}

impl Changes {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            offset: 0,
            lines: 0,
        }
    }

    /// Applies what was added since the last time. Without a file there are no changes yet.
    pub(crate) fn catch_up(&mut self, machine: &Machine) {
        match std::fs::metadata(&self.path) {
            Ok(metadata) if metadata.len() == self.offset => {}
            Ok(metadata) => {
                if metadata.len() < self.offset {
                    self.complain("it has become shorter; what is in it now is applied on top of what was");
                    (self.offset, self.lines) = (0, 0);
                }
                let read = File::open(&self.path).and_then(|mut file| self.read(&mut file, machine));
                if let Err(error) = read {
                    self.complain(&format!("cannot read it: {error}"));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.complain(&format!("cannot read it: {error}")),
        }
    }

    /// Applies the whole lines from the offset on; half a line is left for the next time.
    fn read(&mut self, file: &mut File, machine: &Machine) -> io::Result<()> {
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let Some(end) = bytes.iter().rposition(|&byte| byte == b'\n') else {
            return Ok(());
        };
        bytes.truncate(end + 1);
        self.offset += bytes.len() as u64;
        for line in String::from_utf8_lossy(&bytes).lines() {
            self.lines += 1;
            if !line.trim().is_empty()
                && let Err(problem) = apply(line, machine)
            {
                self.complain(&format!("line {}: {problem}", self.lines));
            }
        }
        Ok(())
    }

    /// Makes a change here, and then known to the others. Under a lock, so that two processes don't both take the
    /// same place on a GPU.
    pub(crate) fn make(&mut self, change: &Change, machine: &Machine) -> Result<(), Refused> {
        let open = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(&self.path);
        let mut file = open.map_err(Refused::File)?;
        flock(&file, FlockOperation::LockExclusive).map_err(|error| Refused::File(error.into()))?;
        self.read(&mut file, machine).map_err(Refused::File)?;
        machine.change(change).map_err(Refused::Change)?;
        let mut line = serde_json::to_string(change).map_err(|error| Refused::File(error.into()))?;
        line.push('\n');
        file.write_all(line.as_bytes()).map_err(Refused::File)?;
        let end = file.stream_position().map_err(Refused::File)?;
        let start = end - line.len() as u64;
        // Who steers takes no lock, and may have added something in between: it is applied after ours, where the
        // others apply it before.
        if start > self.offset {
            let mut between = vec![0; usize::try_from(start - self.offset).unwrap_or(0)];
            file.seek(SeekFrom::Start(self.offset)).map_err(Refused::File)?;
            file.read_exact(&mut between).map_err(Refused::File)?;
            for line in String::from_utf8_lossy(&between).lines() {
                if let Err(problem) = apply(line, machine) {
                    self.complain(&problem);
                }
                self.lines += 1;
            }
        }
        self.offset = end;
        self.lines += 1;
        Ok(())
    }

    fn complain(&self, what: &str) {
        say(&format!("changes `{}`: {what}", self.path.display()));
    }
}

/// Applies one line, or says why not.
fn apply(line: &str, machine: &Machine) -> Result<(), String> {
    let change: Change = serde_json::from_str(line).map_err(|error| error.to_string())?;
    machine.change(&change).map_err(|error| error.to_string())
}
