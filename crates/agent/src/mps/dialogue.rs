//! What is said to the daemon, and how its answers are read. It ends with success also where it refuses, so every setting
//! is read back.

use super::Part;

/// Asks whether anybody is there.
pub(super) const PING: &str = "get_default_active_thread_percentage\n";
/// Ends the daemon; servers that still run have ten seconds.
pub(super) const QUIT: &str = "quit -t 10\n";

/// Asks for the servers.
pub(super) const SERVERS: &str = "get_server_list\n";

/// Asks for the clients of a server.
pub(super) fn clients_of(server: u32) -> String {
    format!("get_client_list {server}\n")
}

/// Process ids of an answer, one a line. A sentence, as `Server 1 not found`, is none.
pub(super) fn numbers(answer: &str) -> Vec<u32> {
    answer
        .lines()
        .filter_map(|line| line.trim().parse().ok())
        .collect()
}

/// Sets the share of threads of a client.
pub(super) fn set_percentage(percentage: u32) -> String {
    format!("set_default_active_thread_percentage {percentage}\n")
}

/// True where the answer to [`set_percentage`] says that it is so. The answer is the number as it is now, e.g. `25.0`.
pub(super) fn is_percentage(answer: &str, percentage: u32) -> bool {
    let last = answer.lines().rev().map(str::trim).find(|line| !line.is_empty());
    let number = last.and_then(|line| line.parse::<f64>().ok());
    number.is_some_and(|number| (number - f64::from(percentage)).abs() < 0.01)
}

/// Sets the memory of a client on the GPU that servers number `ordinal`, and asks for it.
pub(super) fn set_memory(ordinal: usize, mib: u64) -> String {
    format!(
        "set_default_device_pinned_mem_limit {ordinal} {mib}M\nget_default_device_pinned_mem_limit {ordinal}\n"
    )
}

/// True where the answer to [`set_memory`] says that it is so. From 1024 MiB on the daemon writes it in units of 1024 MiB,
/// rounded down: `39G` for `40779M` (seen of driver 550's).
pub(super) fn is_memory(answer: &str, mib: u64) -> bool {
    let last = answer.lines().rev().map(str::trim).find(|line| !line.is_empty());
    let number = |text: &str| text.parse::<u64>().ok();
    last.is_some_and(|text| match text.strip_suffix('G').and_then(number) {
        Some(units) => units == mib / 1024,
        None => text.strip_suffix('M').and_then(number) == Some(mib),
    })
}

/// Compute modes, as `nvidia-smi` takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Default,
    Prohibited,
    ExclusiveProcess,
}

impl Mode {
    /// For `nvidia-smi -c`.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Default => "DEFAULT",
            Self::Prohibited => "PROHIBITED",
            Self::ExclusiveProcess => "EXCLUSIVE_PROCESS",
        }
    }

    /// As `nvidia-smi --query-gpu=compute_mode` writes it, and as [`Self::word`] does.
    pub(super) fn read(text: &str) -> Option<Self> {
        let all = [Self::Default, Self::Prohibited, Self::ExclusiveProcess];
        all.into_iter()
            .find(|mode| mode.word().eq_ignore_ascii_case(text.trim()))
    }
}

/// Devices of the daemon, in the order in which limits count them.
pub(super) fn visible(gpus: &[Part]) -> String {
    let uuids: Vec<&str> = gpus.iter().map(|part| part.uuid.as_str()).collect();
    uuids.join(",")
}
