//! `pitcrew-scout`: a program of its own, so that what runs on every node of a cluster is small.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use pitcrew_host::{HostRoots, Roots};
use pitcrew_scout::server::{CREDENTIALS, InCluster};
use pitcrew_scout::{Notice, Server, Stop};

const HELP: &str = "\
Finds NVIDIA GPUs on this node's PCI bus and says so in its labels: nvidia.com/gpu.present=true, and where Node Feature
Discovery doesn't run feature.node.kubernetes.io/pci-10de.present=true. Takes them away when the GPUs are gone.

Usage: pitcrew-scout --node NAME --api HOST:PORT [OPTIONS]

      --node NAME         Name of the Node
      --api HOST:PORT     The API server; in a pod $(KUBERNETES_SERVICE_HOST):$(KUBERNETES_SERVICE_PORT)
      --credentials DIR   Directory of `token` and `ca.crt` [default: /var/run/secrets/kubernetes.io/serviceaccount]
      --sys DIR           The node's /sys [default: /sys]
      --every SECONDS     How often to look [default: 30]
  -h, --help              Print this
  -V, --version           Print the version
";

/// What was asked for.
struct Arguments {
    node: String,
    api: String,
    credentials: PathBuf,
    sys: PathBuf,
    every: Duration,
}

/// What to do instead of running.
enum Other {
    Print(String),
    Refuse(String),
}

fn main() -> ExitCode {
    match parse(
        std::env::args_os()
            .skip(1)
            .map(|word| word.to_string_lossy().into_owned()),
    ) {
        Ok(arguments) => match run(arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                say("error", &error);
                ExitCode::from(2)
            }
        },
        Err(Other::Print(text)) => {
            // Nobody reads it: nothing is left to say.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(Other::Refuse(why)) => {
            say("error", &format!("{why}; pitcrew-scout --help"));
            ExitCode::from(64)
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, Other> {
    let (mut node, mut api) = (None, None);
    let mut credentials = PathBuf::from(CREDENTIALS);
    let mut sys = PathBuf::from("/sys");
    let mut every = Duration::from_secs(30);
    while let Some(word) = words.next() {
        let (name, given) = match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word, None),
        };
        match name.as_str() {
            "-h" | "--help" => return Err(Other::Print(HELP.to_owned())),
            "-V" | "--version" => {
                return Err(Other::Print(format!(
                    "pitcrew-scout {}\n",
                    env!("CARGO_PKG_VERSION")
                )));
            }
            "--node" | "--api" | "--credentials" | "--sys" | "--every" => {}
            _ => return Err(Other::Refuse(format!("`{name}` is no option"))),
        }
        let value = given
            .or_else(|| words.next())
            .filter(|value| !value.is_empty())
            .ok_or_else(|| Other::Refuse(format!("`{name}` wants a value")))?;
        match name.as_str() {
            "--node" => node = Some(value),
            "--api" => api = Some(value),
            "--credentials" => credentials = value.into(),
            "--sys" => sys = value.into(),
            _ => {
                let seconds = value.parse().ok().filter(|&seconds| seconds > 0);
                let refused = || Other::Refuse(format!("`{value}` is no number of seconds"));
                every = Duration::from_secs(seconds.ok_or_else(refused)?);
            }
        }
    }
    let missing = |name: &str| Other::Refuse(format!("`{name}` is missing"));
    Ok(Arguments {
        node: node.ok_or_else(|| missing("--node"))?,
        api: api.ok_or_else(|| missing("--api"))?,
        credentials,
        sys,
        every,
    })
}

fn run(arguments: Arguments) -> Result<(), String> {
    let (host, port) = address(&arguments.api)
        .ok_or_else(|| format!("`{}` is no address such as `10.43.0.1:443`", arguments.api))?;
    let cluster = InCluster {
        host,
        port,
        credentials: arguments.credentials,
    };
    let server = Server::new(cluster, &arguments.node).map_err(|error| error.to_string())?;
    let mut stop = Stop::on_signals().map_err(|error| format!("signals can't be caught: {error}"))?;
    let mut roots = Roots::under("/");
    roots.sys = arguments.sys;
    pitcrew_scout::run(
        &HostRoots::new(roots),
        &server,
        arguments.every,
        |time| stop.wait(time),
        |notice| {
            let (level, text) = match notice {
                Notice::Labelled(labels) if labels.is_empty() => {
                    ("info", "no GPU is left: the labels are gone".to_owned())
                }
                Notice::Labelled(labels) => ("info", format!("there is a GPU: {}", labels.join(", "))),
                Notice::Trouble(text) => ("warning", format!("{text}; tried again")),
            };
            say(level, &text);
        },
    );
    Ok(())
}

/// `10.43.0.1:443`, `[fd00::1]:443`, and as Kubernetes' variables make it of an IPv6 address: `fd00::1:443`.
fn address(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    (!host.is_empty()).then_some(())?;
    Some((host.to_owned(), port.parse().ok()?))
}

fn say(level: &str, text: &str) {
    // A log that nobody takes is no reason to stop.
    let _ = writeln!(std::io::stderr(), "{level}: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Arguments, String> {
        parse(line.split_whitespace().map(str::to_owned)).map_err(|other| match other {
            Other::Print(text) | Other::Refuse(text) => text,
        })
    }

    #[test]
    fn options_are_read_with_and_without_an_equals_sign() {
        let arguments = parsed("--node a --api=h:1 --every 5 --sys /host/sys").map_err(|_| ());
        let arguments = arguments.unwrap();
        assert_eq!((arguments.node.as_str(), arguments.api.as_str()), ("a", "h:1"));
        assert_eq!(arguments.every, Duration::from_secs(5));
        assert_eq!(arguments.sys, PathBuf::from("/host/sys"));
        assert_eq!(arguments.credentials, PathBuf::from(CREDENTIALS));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, expected) in [
            ("", "`--node` is missing"),
            ("--node a", "`--api` is missing"),
            ("--node", "`--node` wants a value"),
            ("--node= --api x:1", "`--node` wants a value"),
            ("--every 0 --node a", "`0` is no number of seconds"),
            ("--nodes a", "`--nodes` is no option"),
        ] {
            assert_eq!(parsed(line).err().as_deref(), Some(expected), "{line}");
        }
    }

    #[test]
    fn addresses_of_both_families_are_read() {
        let read = |text: &str| address(text).map(|(host, port)| format!("{host} {port}"));
        assert_eq!(read("10.43.0.1:443").as_deref(), Some("10.43.0.1 443"));
        assert_eq!(read("[fd00::1]:443").as_deref(), Some("fd00::1 443"));
        assert_eq!(read("fd00::1:443").as_deref(), Some("fd00::1 443"));
        for text in ["", "host", ":443", "host:", "host:x", "host:70000"] {
            assert_eq!(address(text), None, "{text}");
        }
    }
}
