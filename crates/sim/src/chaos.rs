//! Chaos on one imaginary node: what can go wrong goes wrong, in an order that a seed decides, and what must hold is
//! looked at after every step.
//!
//! What must hold:
//! - no device is handed out twice, and no GPU is held in two forms that exclude each other;
//! - every CDI name that was handed out resolves for as long as its pod lives;
//! - the kubelet gets its answers in time, and an agent that is asked to stop does;
//! - when all is well again, all of the node's capacity is back within [`RECOVERY`].

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use pitcrew_kubelet::fake::Options as KubeletOptions;
use pitcrew_scenario::{Scenario, ScenarioError};

use crate::dice::Dice;
use crate::node::{self, Node};
use crate::pods::Pod;

mod action;
mod recovery;

use action::Action;

/// Scenarios that make different chaos: one card, one that can be cut, eight of these, four different cards.
pub const SCENARIOS: [&str; 4] = ["mixed", "rtx3060", "a30", "h100x8"];
/// How soon capacity is back when all is well again.
pub const RECOVERY: Duration = Duration::from_secs(20);
/// How soon the kubelet has an answer, or the agent has stopped.
const ANSWER: Duration = Duration::from_secs(5);
/// Steps until all is made well again.
const STEPS: u32 = 30;
/// Steps of the past that are told.
const TOLD: usize = 60;
/// How long the node keeps the driver waiting for an answer: shorter than in life, so that more happens.
const DRIVER: Duration = Duration::from_millis(300);

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Options {
    /// Decides everything but time.
    pub seed: u64,
    /// A built-in scenario.
    pub scenario: String,
    /// For how long; what is begun is ended.
    pub length: Duration,
}

/// What was done and held.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The scenario.
    pub scenario: String,
    /// Steps.
    pub steps: u32,
    /// How often each thing was done.
    pub actions: BTreeMap<&'static str, u32>,
    /// Pods that were admitted.
    pub admitted: u32,
    /// Pods that were not, by reason.
    pub refused: BTreeMap<&'static str, u32>,
    /// Times that all was made well again.
    pub recoveries: u32,
    /// The longest that capacity took to come back.
    pub slowest: Duration,
    /// All that happened, and what the agent told of it.
    pub past: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {} on {}: {} steps, {} pods admitted and {} refused, {} recoveries, the slowest {:.2} s; done:",
            self.seed,
            self.scenario,
            self.steps,
            self.admitted,
            self.refused.values().sum::<u32>(),
            self.recoveries,
            self.slowest.as_secs_f32()
        )?;
        for (action, count) in &self.actions {
            write!(f, " {action} {count}")?;
        }
        write!(f, "; refused:")?;
        for (reason, count) in &self.refused {
            write!(f, " {reason} {count}")?;
        }
        Ok(())
    }
}

/// Why chaos ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no node to begin with.
    #[error(transparent)]
    Node(#[from] node::Error),
    /// The scenario is none.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// Something did not hold.
    #[error("seed {seed} on {scenario}, step {step}: {what}\n{}", .past.join("\n"))]
    Broken {
        /// The seed, to see it again.
        seed: u64,
        /// The scenario.
        scenario: String,
        /// The step.
        step: u32,
        /// What did not hold.
        what: String,
        /// What happened before, and what the agent told.
        past: Vec<String>,
    },
}

/// A node in chaos.
struct World {
    node: Node,
    dice: Dice,
    /// Pods that run.
    pods: Vec<Pod>,
    named: u32,
    /// GPU that each device is on or was, by UUIDs.
    parents: BTreeMap<String, String>,
    begun: Instant,
    past: Vec<String>,
    heard: usize,
    report: Report,
}

/// Makes chaos on one node.
///
/// # Errors
/// What did not hold.
pub async fn run(options: &Options) -> Result<Report, Error> {
    let scenario = Scenario::builtin(&options.scenario)?;
    let kubelet = KubeletOptions {
        grace: Duration::from_secs(2),
        ..KubeletOptions::default()
    };
    let builder = Node::builder(scenario).deadline(DRIVER).kubelet(kubelet);
    let node = builder.start().await?;
    let mut world = World {
        node,
        dice: Dice::new(options.seed),
        pods: Vec::new(),
        named: 0,
        parents: BTreeMap::new(),
        begun: Instant::now(),
        past: Vec::new(),
        heard: 0,
        report: Report {
            seed: options.seed,
            scenario: options.scenario.clone(),
            ..Report::default()
        },
    };
    let result = world.live(options.length).await;
    world.hear();
    result.map_err(|what| {
        let first = world.past.len().saturating_sub(TOLD);
        Error::Broken {
            seed: options.seed,
            scenario: options.scenario.clone(),
            step: world.report.steps,
            what,
            past: world.past.split_off(first),
        }
    })?;
    world.report.past = world.past;
    Ok(world.report)
}

impl World {
    async fn live(&mut self, length: Duration) -> Result<(), String> {
        self.node.start_agent().await;
        self.recover().await?;
        let end = Instant::now() + length;
        while Instant::now() < end {
            for _ in 0..STEPS {
                self.report.steps += 1;
                let action = Action::roll(&mut self.dice);
                self.note(&format!("{action:?}"));
                *self.report.actions.entry(action.name()).or_default() += 1;
                self.perform(action).await?;
                self.check()?;
                let pause = self.pause();
                tokio::time::sleep(pause).await;
                self.check()?;
            }
            self.recover().await?;
            self.check()?;
        }
        self.node
            .kubelet()
            .held()
            .is_empty()
            .then_some(())
            .ok_or_else(|| "somebody holds a device after the last pod has ended".to_owned())
    }

    /// Until the next step: often hardly anything, sometimes long enough for all to have been seen by the agent.
    fn pause(&mut self) -> Duration {
        let (kind, length) = (self.dice.below(8), self.dice.below(1000));
        let most = match kind {
            0..=3 => 20,
            4..=6 => 200,
            _ => 1000,
        };
        Duration::from_millis(u64::from(length * most / 1000))
    }

    fn note(&mut self, what: &str) {
        self.hear();
        let at = self.begun.elapsed().as_secs_f32();
        self.past.push(format!("{at:8.3} s  {what}"));
    }

    /// What the agent has told since the last time.
    fn hear(&mut self) {
        let notices = self.node.notices().since(self.heard);
        self.heard += notices.len();
        let at = self.begun.elapsed().as_secs_f32();
        let told = notices
            .iter()
            .map(|notice| format!("{at:8.3} s      agent, {}: {}", notice.topic, notice.text));
        self.past.extend(told);
    }
}
