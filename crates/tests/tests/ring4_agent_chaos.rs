//! Chaos on a real node: kubelet, containerd and agent are killed, sharing is toggled and the driver replaced while
//! pods come and go. The judges are the kubelet's pod-resources and the device nodes in live containers.
//!
//! `PITCREW_CHAOS_SECONDS` and `PITCREW_CHAOS_SEED` make it longer, and the same again.
#![expect(clippy::print_stdout, reason = "figures and seeds, with --nocapture")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use pitcrew_core::plugin::uuid_of;
use pitcrew_scenario::{Machine, Scenario};
use pitcrew_tests::agent::{Agent, Gpus, PodResources, gpu_pod};
use pitcrew_tests::{Namespace, on_node, signal_daemon, testbed, wait_for};
use serde_json::json;

const SCENARIO: &str = "h100x8";
const CONFIG: &str = "/etc/pitcrew-chaos.yaml";
const WHOLE: &str = "nvidia.com/gpu";
const SHARED: &str = "nvidia.com/gpu.shared";
const REPLICAS: usize = 3;

fn given(variable: &str) -> Option<u64> {
    std::env::var_os(variable)?.to_str()?.parse().ok()
}

/// `SplitMix64`.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        usize::try_from(z % sides as u64).unwrap_or(0)
    }
}

struct Node {
    gpus: Gpus,
    agent: Option<Agent>,
    kubelet: PodResources,
    namespace: Namespace,
    /// Minor of each GPU, by UUID.
    minors: BTreeMap<String, usize>,
    shared: bool,
    driver: u32,
    pods: Vec<String>,
    made: usize,
    /// What was done, for the account.
    done: BTreeMap<&'static str, usize>,
    /// Looks at pod-resources, and at device nodes of live containers.
    looks: (usize, usize),
}

impl Node {
    fn new() -> Self {
        let minors = (0..)
            .zip(Machine::new(Scenario::builtin(SCENARIO).expect("a built-in scenario")).uuids())
            .map(|(minor, uuid)| (uuid, minor))
            .collect();
        let mut node = Self {
            gpus: Gpus::new(SCENARIO),
            agent: None,
            kubelet: PodResources::new(),
            namespace: Namespace::new("ring4-agent-chaos", &[]),
            minors,
            shared: false,
            driver: 0,
            pods: Vec::new(),
            made: 0,
            done: BTreeMap::new(),
            looks: (0, 0),
        };
        node.configure();
        node.start_agent();
        node
    }

    fn configure(&self) {
        let mut text = "version: v1\n".to_owned();
        if self.shared {
            let _ = write!(
                text,
                "sharing:\n  timeSlicing:\n    renameByDefault: true\n    resources:\n    \
                 - {{name: {WHOLE}, replicas: {REPLICAS}}}\n"
            );
        }
        on_node(
            &[
                "sh",
                "-c",
                &format!("cat > {CONFIG}.new && mv {CONFIG}.new {CONFIG}"),
            ],
            &text,
        )
        .ok();
    }

    fn start_agent(&mut self) {
        self.agent = Some(Agent::start(&self.gpus, &["--config", CONFIG]));
    }

    fn act(&mut self, dice: &mut Dice) {
        let what = match dice.roll(16) {
            0..=4 => self.add_pod(dice),
            5..=7 => self.remove_pod(dice),
            8..=10 => {
                if let Some(agent) = self.agent.take() {
                    agent.end("KILL");
                }
                self.start_agent();
                "agent killed"
            }
            11 => {
                signal_daemon("kubelet", "KILL");
                testbed(&["up"]).ok();
                "kubelet killed"
            }
            12 => {
                signal_daemon("containerd", "KILL");
                testbed(&["up"]).ok();
                "containerd killed"
            }
            13 | 14 => {
                self.shared = !self.shared;
                self.configure();
                "sharing toggled"
            }
            _ => {
                self.driver = (self.driver + 1) % 8;
                let version = format!("580.159.{:02}", self.driver);
                self.gpus.change(&json!({"replace-driver": {"version": version}}));
                "driver replaced"
            }
        };
        *self.done.entry(what).or_default() += 1;
    }

    fn add_pod(&mut self, dice: &mut Dice) -> &'static str {
        if self.pods.len() >= 5 {
            return self.remove_pod(dice);
        }
        self.made += 1;
        let name = format!("pod-{}", self.made);
        let limits = if self.shared {
            json!({SHARED: 1})
        } else {
            json!({WHOLE: 1 + dice.roll(3)})
        };
        let rest = json!({"restartPolicy": "Always"});
        let pod = gpu_pod(
            &name,
            &limits,
            "trap exit TERM; while :; do sleep 0.2; done",
            &rest,
        );
        self.namespace.kubectl(&["apply", "-f", "-"], &pod).ok();
        self.pods.push(name);
        "pod made"
    }

    fn remove_pod(&mut self, dice: &mut Dice) -> &'static str {
        if self.pods.is_empty() {
            return "nothing";
        }
        let name = self.pods.swap_remove(dice.roll(self.pods.len()));
        self.namespace
            .kubectl(&["delete", "pod", &name, "--wait=false"], "")
            .ok();
        "pod deleted"
    }

    /// No id is held twice, no GPU whole and in slices.
    fn look(&mut self) {
        let Some(held) = self.kubelet.held() else {
            return;
        };
        self.looks.0 += 1;
        let (mut ids, mut whole, mut sliced) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (pod, _, held_ids) in held
            .iter()
            .filter(|(_, resource, _)| resource.starts_with("nvidia.com/"))
        {
            for id in held_ids {
                assert!(
                    ids.insert(id.clone()),
                    "{id} is held twice, at last by {pod}: {held:?}"
                );
                let form = if id.contains("::") {
                    &mut sliced
                } else {
                    &mut whole
                };
                form.insert(uuid_of(id).to_owned());
            }
        }
        let both: Vec<_> = whole.intersection(&sliced).collect();
        assert!(
            both.is_empty(),
            "{both:?} are held whole and in slices: {held:?}\n{}",
            self.log()
        );
    }

    /// A live container sees the GPUs that the kubelet says it holds, and no others.
    fn look_inside(&mut self) {
        for name in self.pods.clone() {
            let held = |node: &Self| -> Option<BTreeSet<usize>> {
                let held = node.kubelet.held()?;
                let of_pod = held.iter().filter(|(pod, ..)| pod.ends_with(&format!("/{name}")));
                let ids = of_pod.flat_map(|(.., ids)| ids);
                ids.map(|id| node.minors.get(uuid_of(id)).copied()).collect()
            };
            let before = held(self);
            let script = "ls -d /dev/nvidia[0-9]*";
            let seen = self
                .namespace
                .kubectl(&["exec", &name, "--", "sh", "-c", script], "");
            let (Some(before), Some(after), Some(0)) = (before, held(self), seen.code) else {
                // Not started yet, or the kubelet or containerd is away.
                continue;
            };
            let seen: BTreeSet<usize> = seen
                .stdout
                .lines()
                .filter_map(|line| line.strip_prefix("/dev/nvidia")?.parse().ok())
                .collect();
            if before == after {
                assert_eq!(
                    seen,
                    before,
                    "{name} sees other GPUs than it holds\n{}",
                    self.log()
                );
                self.looks.1 += 1;
            }
        }
    }

    fn log(&self) -> String {
        self.agent.as_ref().map(Agent::log).unwrap_or_default()
    }

    /// Everything comes back, and works.
    fn recovers(&mut self) {
        testbed(&["up"]).ok();
        for name in std::mem::take(&mut self.pods) {
            self.namespace
                .kubectl(&["delete", "pod", &name, "--wait=false"], "")
                .ok();
        }
        self.shared = false;
        self.configure();
        wait_for(
            &format!("8 GPUs to be free again; the agent said:\n{}", self.log()),
            || (self.kubelet.allocatable(WHOLE).len() == 8).then_some(()),
        );
        let script = "ls -d /dev/nvidia[0-9]* | wc -l; probe load libcuda.so.1";
        let pod = gpu_pod("all", &json!({WHOLE: 8}), script, &json!({}));
        self.namespace.kubectl(&["apply", "-f", "-"], &pod).ok();
        let (phase, log) = self.namespace.ended("all");
        assert_eq!(
            (phase.as_str(), log.as_str()),
            ("Succeeded", "8\nlibcuda.so.1: loaded\n")
        );
    }
}

#[test]
#[ignore = "needs the test bed: cargo xtask test --ring 4"]
fn no_device_is_given_twice_and_capacity_comes_back() {
    let seconds = given("PITCREW_CHAOS_SECONDS").unwrap_or(60);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = given("PITCREW_CHAOS_SEED").unwrap_or(now.map_or(0, |now| now.as_secs()));
    println!("chaos: seed {seed}, {seconds} s");
    let mut dice = Dice(seed);
    let mut node = Node::new();
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut turn = 0;
    while Instant::now() < end {
        node.act(&mut dice);
        for _ in 0..dice.roll(6) {
            node.look();
            std::thread::sleep(Duration::from_millis(150));
        }
        turn += 1;
        if turn % 4 == 0 {
            node.look_inside();
        }
    }
    node.look();
    node.recovers();
    println!(
        "chaos: seed {seed}: {turn} actions {:?}; {} looks at pod-resources, {} into live containers: \
         no device given twice, all capacity back",
        node.done, node.looks.0, node.looks.1
    );
}
