//! What NVIDIA's programs for the Multi-Process Service answer on an imaginary node.

use std::collections::BTreeMap;
use std::io;

/// Variable that tells the daemon, and whoever talks to it, where its pipe is.
const PIPE: &str = "CUDA_MPS_PIPE_DIRECTORY";

/// The daemon's control program.
pub(crate) const CONTROL: &str = "nvidia-cuda-mps-control";
/// What sets compute modes.
pub(crate) const SMI: &str = "nvidia-smi";

/// Where a daemon's pipe is, by its environment.
pub(crate) fn pipe(env: &[(String, String)]) -> Option<&str> {
    env.iter()
        .find(|(name, _)| name == PIPE)
        .map(|(_, value)| value.as_str())
}

/// What has been set.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    /// Of daemons, by pipe and setting.
    limits: BTreeMap<(String, String), String>,
    /// Compute modes of GPUs, by UUID.
    modes: BTreeMap<String, String>,
}

/// What the control program says, and whether the daemon ends.
pub(crate) struct Said {
    pub(crate) output: String,
    pub(crate) quits: bool,
}

impl Settings {
    /// Says something to the daemon of a pipe, which runs.
    pub(crate) fn say(&mut self, pipe: &str, input: &str) -> Said {
        let mut said = Said {
            output: String::new(),
            quits: false,
        };
        for line in input.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let answer = match words[..] {
                ["quit", ..] => {
                    said.quits = true;
                    continue;
                }
                ["set_default_active_thread_percentage", percentage] => {
                    self.set(pipe, "threads", &format!("{percentage}.0"));
                    self.get(pipe, "threads", "100.0")
                }
                ["get_default_active_thread_percentage"] => self.get(pipe, "threads", "100.0"),
                ["set_default_device_pinned_mem_limit", gpu, limit] => {
                    self.set(pipe, gpu, limit);
                    continue;
                }
                ["get_default_device_pinned_mem_limit", gpu] => self.get(pipe, gpu, "0M"),
                _ => "unknown command".to_owned(),
            };
            said.output += &answer;
            said.output.push('\n');
        }
        said
    }

    fn set(&mut self, pipe: &str, name: &str, value: &str) {
        self.limits
            .insert((pipe.to_owned(), name.to_owned()), value.to_owned());
    }

    fn get(&self, pipe: &str, name: &str, default: &str) -> String {
        let key = (pipe.to_owned(), name.to_owned());
        self.limits.get(&key).map_or(default, String::as_str).to_owned()
    }

    /// What `nvidia-smi` says; `None` for what isn't about compute modes.
    pub(crate) fn smi(&mut self, arguments: &[String]) -> Option<String> {
        let after = |flag: &str| {
            let at = arguments.iter().position(|word| word == flag)?;
            arguments.get(at + 1).cloned()
        };
        let uuid = after("-i")?;
        if let Some(mode) = after("-c") {
            self.modes.insert(uuid, mode);
            return Some(String::new());
        }
        let asks = arguments.iter().any(|word| word == "--query-gpu=compute_mode");
        let mode = self.modes.get(&uuid).map_or("Default", String::as_str);
        asks.then(|| format!("{mode}\n"))
    }
}

/// What is said where no daemon has the pipe.
pub(crate) fn nobody() -> io::Error {
    io::Error::new(
        io::ErrorKind::ConnectionRefused,
        "it ended with exit status: 1: Cannot find MPS control daemon process",
    )
}
