//! The story of a node, as it is told.

use std::fmt::Write as _;

use pitcrew_scenario::Scenario;
use pitcrew_sim::Node;
use pitcrew_sim::story::{DEADLINE, Story};

async fn told(scenario: &str, host: &str) -> String {
    let scenario = Scenario::builtin(scenario).expect("it is built in");
    let node = Node::builder(scenario).host(host).start().await;
    let mut node = node.expect("a node can be laid out");
    let mut text = String::new();
    let mut tell = |line: pitcrew_sim::story::Line| {
        let _ = writeln!(
            text,
            "{:.2} {:?} {}: {}",
            line.at.as_secs_f32(),
            line.mark,
            line.topic,
            line.text
        );
        for detail in &line.details {
            let _ = writeln!(text, "      {detail}");
        }
    };
    let story = Story::new(&mut node, DEADLINE, &mut tell).tell().await;
    let told = node.notices().all();
    let told: Vec<String> = told
        .into_iter()
        .map(|notice| format!("{}: {}", notice.topic, notice.text))
        .collect();
    assert!(story.is_ok(), "{text}\nThe agent told:\n{}", told.join("\n"));
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_step_of_a_small_card_comes_true() {
    let story = told("rtx3060", "rke2").await;
    assert!(
        story.contains("Skipped mig: no pod gets a MIG slice here"),
        "{story}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_step_of_a_card_that_is_cut_after_a_reset_comes_true() {
    let story = told("a30", "k3s").await;
    assert!(story.contains("mig-slice asked for nvidia.com/mig-"), "{story}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_step_of_eight_cards_comes_true() {
    let story = told("h100x8", "rke2").await;
    assert!(story.contains("mig-slice asked for nvidia.com/mig-"), "{story}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_step_of_four_different_cards_comes_true() {
    let story = told("mixed", "rke2").await;
    assert!(story.contains("mig-slice asked for nvidia.com/mig-"), "{story}");
}
