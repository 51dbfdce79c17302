//! `pitcrew sim`: the real agent on imaginary nodes, by the real binary.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::program::{pitcrew, run, stdout};

/// What differs from run to run: times, ports, the scratch directory.
fn filtered(story: &str) -> String {
    let mut out = String::new();
    for line in story.lines() {
        let (time, rest) = line.split_at_checked(9).unwrap_or(("", line));
        let is_time = time
            .trim()
            .strip_suffix(" s")
            .is_some_and(|number| number.parse::<f32>().is_ok());
        let line = if is_time {
            format!("   0.00 s{rest}")
        } else {
            line.to_owned()
        };
        let mut words = Vec::new();
        for word in line.split(' ') {
            let masked = match word {
                _ if word.contains("/pitcrew-") => {
                    let (before, after) = word.split_once("/pitcrew-").unwrap_or_default();
                    let name = before.split_once('=').map_or("", |(name, _)| name);
                    let tail = after
                        .split_once('/')
                        .map_or(String::new(), |(_, tail)| format!("/{tail}"));
                    let equals = if name.is_empty() { "" } else { "=" };
                    format!("{name}{equals}SCRATCH{tail}")
                }
                _ if word.starts_with("http://127.0.0.1:") => {
                    let path = word["http://".len()..]
                        .split_once('/')
                        .map_or(String::new(), |(_, path)| format!("/{path}"));
                    format!("http://127.0.0.1:PORT{path}")
                }
                _ => word.to_owned(),
            };
            words.push(masked);
        }
        out += words.join(" ").trim_end();
        out.push('\n');
    }
    out
}

fn told(args: &[&str]) -> (String, Option<i32>) {
    let output = run(pitcrew(&[&["sim", "--once"], args].concat()));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(stderr, "", "{}", stdout(&output));
    (stdout(&output), output.status.code())
}

#[test]
fn the_whole_story_of_the_card_at_home_is_told() {
    let (story, code) = told(&[]);
    assert_eq!(code, Some(0), "{story}");
    insta::assert_snapshot!(filtered(&story));
}

#[test]
fn every_step_comes_true_on_other_nodes() {
    for args in [
        &["--scenario", "h100x8"][..],
        &["--scenario", "mixed"],
        &["--scenario", "a30", "--host", "k3s"],
    ] {
        let (story, code) = told(args);
        assert_eq!(code, Some(0), "{args:?}: {story}");
        assert!(
            story.contains("mig-slice asked for nvidia.com/mig-"),
            "{args:?}: {story}"
        );
        assert!(story.contains("is healthy again"), "{args:?}: {story}");
    }
}

#[test]
fn a_step_that_does_not_come_true_is_a_finding_with_its_reason() {
    // A driver that never answers.
    let scenario = "description: silent\ndriver: {version: 580.159.04, cuda: \"13.0\"}\nhang: [nvmlDeviceGetName]\n\
                    gpus:\n  - card: Tesla T4\n";
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("silent.yaml");
    std::fs::write(&file, scenario).unwrap();
    let (story, code) = told(&["--scenario", file.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{story}");
    let words: Vec<&str> = story.split_whitespace().collect();
    assert!(words.join(" ").contains("did not happen within 5 s: "), "{story}");
}

/// A node that stays up, and the lines that it has told.
struct Up {
    child: Child,
    told: Vec<String>,
}

impl Up {
    fn start() -> Self {
        let mut child = pitcrew(&["sim"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut told = Vec::new();
        for line in &mut lines {
            let line = line.unwrap();
            let is_last = line.contains("stays up until");
            told.push(line);
            if is_last {
                break;
            }
        }
        Self { child, told }
    }

    /// What is written behind a word.
    fn said(&self, word: &str) -> String {
        let line = self.told.iter().find_map(|line| line.split_once(word));
        line.unwrap().1.split_whitespace().next().unwrap().to_owned()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn get(url: &str) -> String {
    let (address, path) = url["http://".len()..].split_once('/').unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    write!(
        stream,
        "GET /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_node_stays_up_serves_what_it_says_and_leaves_nothing_behind() {
    let mut up = Up::start();
    let health = up.said("served");
    assert!(get(&health).ends_with("ok\n"));
    let metrics = get(&health.replace("/healthz", "/metrics"));
    let expected = "pitcrew_sim_devices{resource=\"nvidia.com/gpu\",health=\"Healthy\"} 1";
    assert!(metrics.contains(expected), "{metrics}");
    let nodes = get(&format!("{}/api/v1/nodes/gpu-worker-1", up.said("API")));
    assert!(nodes.contains("nvidia.com/gpu.product"), "{nodes}");
    let files = up.said("files");
    assert!(Path::new(&files).join("kubeconfig").exists());
    let child = rustix::process::Pid::from_child(&up.child);
    rustix::process::kill_process(child, rustix::process::Signal::INT).unwrap();
    let status = up.child.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(2));
    assert!(!Path::new(&files).exists());
}
