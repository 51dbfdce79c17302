//! Which devices containers get.

use std::time::Instant;

use proptest::prelude::*;

use super::together::sets;
use super::*;
use crate::inventory::{Link, PciPath};
use crate::plugin::Sharing;
use crate::plugin::testing::{cut, gpu, link, lost, node, planned};
use crate::{Inventory, Reading};

fn strings(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

/// A node whose GPUs are connected so.
fn connected(gpus: u8, links: Vec<Link>) -> Inventory {
    Inventory {
        links,
        ..node((0..gpus).map(gpu).collect())
    }
}

/// All pairs of `gpus` GPUs, of which each half is on one NUMA node.
fn pairs(gpus: u32, nvlinks: impl Fn(u32, u32) -> u32) -> Vec<Link> {
    let path = |from, to| {
        if from * 2 / gpus == to * 2 / gpus {
            PciPath::NumaNode
        } else {
            PciPath::System
        }
    };
    (0..gpus)
        .flat_map(|from| (from + 1..gpus).map(move |to| (from, to)))
        .map(|(from, to)| link(from, to, path(from, to), nvlinks(from, to)))
        .collect()
}

fn of(inventory: &Inventory, text: &str) -> Preference {
    let plan = planned(inventory, text);
    let policy = crate::plugin::testing::config(text).flags.plugin.sharing_policy;
    Preference::new(&plan.resources[0], &Topology::of(inventory), policy)
}

/// What is chosen of GPUs, by index, all others being free but for those `without`.
fn chosen(inventory: &Inventory, without: &[u32], must: &[u32], size: usize) -> Vec<u32> {
    let name = |index: &u32| format!("GPU-{index}");
    let gpus = inventory
        .gpus
        .iter()
        .filter(|gpu| gpu.readings.uuid.value().is_some());
    let available: Vec<String> = gpus
        .map(|gpu| gpu.index)
        .filter(|index| !without.contains(index))
        .map(|index| name(&index))
        .collect();
    let must: Vec<String> = must.iter().map(name).collect();
    let mut chosen: Vec<u32> = of(inventory, "")
        .choose(&available, &must, size)
        .iter()
        .map(|id| id[4..].parse().unwrap())
        .collect();
    chosen.sort_unstable();
    chosen
}

/// Pain #11 of the fact sheet `devices`, section 7 (#546 #1193): GPUs with a bridge between them are given to different
/// pods.
#[test]
fn two_gpus_with_a_bridge_go_to_one_container() {
    let bridged = connected(8, pairs(8, |from, to| if from / 2 == to / 2 { 4 } else { 0 }));
    assert_eq!(chosen(&bridged, &[], &[], 2), [0, 1]);
    assert_eq!(chosen(&bridged, &[0], &[], 2), [2, 3]);
    assert_eq!(chosen(&bridged, &[0, 3, 4], &[], 2), [6, 7]);
    assert_eq!(chosen(&bridged, &[], &[5], 2), [4, 5]);
    assert_eq!(chosen(&bridged, &[0], &[], 4), [4, 5, 6, 7]);
    // A pod with one GPU takes the one that has lost its partner.
    assert_eq!(chosen(&bridged, &[2], &[], 1), [3]);
}

/// Pain #11 as well: the reference gives the pod a worse pair, because the other partition scores more as a whole.
#[test]
fn a_container_gets_the_best_pair_that_is_free() {
    let nvlinks = |from, to| match (from, to) {
        (0, 1) => 4,
        (0, 2) | (1, 3) => 3,
        _ => 0,
    };
    let node = connected(4, pairs(4, nvlinks));
    assert_eq!(chosen(&node, &[], &[], 2), [0, 1]);
}

/// Pain #11 as well: of pairs that are alike, one that leaves the others together.
#[test]
fn what_is_left_stays_together() {
    // Two groups of four in which everybody has two links, one GPU of the first is taken.
    let node = connected(8, pairs(8, |from, to| if from / 4 == to / 4 { 2 } else { 0 }));
    assert_eq!(chosen(&node, &[1], &[], 2), [0, 2]);
    assert_eq!(chosen(&node, &[1], &[], 3), [0, 2, 3]);
    assert_eq!(chosen(&node, &[1], &[], 4), [4, 5, 6, 7]);
    assert_eq!(chosen(&node, &[6], &[], 1), [4]);
}

#[test]
fn behind_switches_all_nvlinks_are_alike_and_numa_decides() {
    let node = connected(8, pairs(8, |_, _| 18));
    assert_eq!(chosen(&node, &[], &[], 4), [0, 1, 2, 3]);
    assert_eq!(chosen(&node, &[1, 2], &[], 4), [4, 5, 6, 7]);
    assert_eq!(chosen(&node, &[], &[6], 2), [4, 6]);
    assert_eq!(chosen(&node, &[], &[], 8), [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn without_links_the_numa_nodes_decide() {
    let inventory = node((0..4).map(gpu).collect());
    let numa = [("GPU-0", 0), ("GPU-1", 1), ("GPU-2", 0), ("GPU-3", 1)];
    let numa = numa
        .into_iter()
        .map(|(uuid, node)| (uuid.to_owned(), node))
        .collect();
    let plan =
        crate::plugin::resources::plan(&inventory, &crate::plugin::config::Config::default(), &numa).unwrap();
    let preference = Preference::new(
        &plan.resources[0],
        &Topology::of(&inventory),
        SharingPolicy::Distributed,
    );
    let all = strings(&["GPU-0", "GPU-1", "GPU-2", "GPU-3"]);
    assert_eq!(preference.choose(&all, &[], 2), ["GPU-0", "GPU-2"]);
    assert_eq!(preference.choose(&all[1..], &[], 2), ["GPU-1", "GPU-3"]);
}

/// Pain #2 of the fact sheet `devices`, section 7 (#2038): one lost GPU fails every call.
#[test]
fn a_lost_gpu_takes_no_part_and_fails_no_call() {
    let mut inventory = connected(4, pairs(4, |_, _| 4));
    inventory.gpus[1] = lost(1);
    for link in &mut inventory.links {
        if link.from == 1 || link.to == 1 {
            link.path = Reading::Failed("GPU is lost".to_owned());
            link.nvlinks = Reading::Failed("GPU is lost".to_owned());
        }
    }
    assert_eq!(chosen(&inventory, &[], &[], 2), [2, 3]);
    assert_eq!(chosen(&inventory, &[], &[], 3), [0, 2, 3]);
}

/// Pain #2 as well: a GPU that was lost after its resource was offered, of which the topology knows nothing.
#[test]
fn a_gpu_of_which_nothing_is_known_comes_last() {
    let healthy = connected(4, pairs(4, |_, _| 4));
    let plan = planned(&healthy, "");
    let mut later = healthy;
    later.gpus[0] = lost(0);
    let preference = Preference::new(
        &plan.resources[0],
        &Topology::of(&later),
        SharingPolicy::Distributed,
    );
    let all = strings(&["GPU-0", "GPU-1", "GPU-2", "GPU-3"]);
    assert_eq!(preference.choose(&all, &[], 2), ["GPU-2", "GPU-3"]);
    assert_eq!(preference.choose(&all, &[], 4).len(), 4);
    assert_eq!(preference.choose(&all, &all[..1], 2), ["GPU-0", "GPU-1"]);
}

/// Pain #10 of the fact sheet `devices`, section 7 (#448): links that one GPU has and the other doesn't.
#[test]
fn links_that_are_listed_one_way_twice_or_not_at_all_are_as_good() {
    let one_way = connected(3, vec![link(2, 0, PciPath::System, 4)]);
    assert_eq!(chosen(&one_way, &[], &[], 2), [0, 2]);
    let differing = connected(
        3,
        vec![
            link(0, 1, PciPath::SingleSwitch, 0),
            link(0, 2, PciPath::System, 0),
            link(2, 0, PciPath::System, 2),
        ],
    );
    assert_eq!(chosen(&differing, &[], &[], 2), [0, 2]);
    let nowhere = connected(
        2,
        vec![link(0, 9, PciPath::System, 4), link(1, 1, PciPath::System, 1)],
    );
    assert_eq!(chosen(&nowhere, &[], &[], 1), [0]);
    let mut partly = connected(
        3,
        vec![link(0, 1, PciPath::System, 2), link(1, 2, PciPath::System, 2)],
    );
    partly.links[0].nvlinks = Reading::Failed("timeout".to_owned());
    assert_eq!(chosen(&partly, &[], &[], 2), [1, 2]);
}

/// Pain #9 of the fact sheet `devices`, section 7 (#774): a call takes 16 to 30 seconds.
#[test]
fn no_call_looks_at_more_than_a_thousand_sets() {
    assert_eq!(sets(8, 4), 70);
    assert_eq!(sets(16, 2), 120);
    assert_eq!(sets(16, 15), 16);
    assert!(sets(16, 8) > MOST_SETS);
    assert!(sets(1_000_000, 500_000) > MOST_SETS);
    // Two boards of eight behind switches of their own.
    let node = connected(16, pairs(16, |from, to| if from / 8 == to / 8 { 12 } else { 0 }));
    assert_eq!(chosen(&node, &[], &[], 8), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(chosen(&node, &[1], &[], 8), [8, 9, 10, 11, 12, 13, 14, 15]);
    assert_eq!(chosen(&node, &[1, 9], &[3], 7), [0, 2, 3, 4, 5, 6, 7]);
}

const SHARED: &str = "sharing: {timeSlicing: {resources: [{name: gpu, replicas: 3}]}}\n";
const PACKED: &str = "flags: {plugin: {sharedDevicesAllocationPolicy: packed}}\n";

#[test]
fn replicas_are_spread_by_default() {
    let preference = of(&connected(2, Vec::new()), SHARED);
    let free = strings(&["GPU-0::1", "GPU-0::2", "GPU-1::0", "GPU-1::1", "GPU-1::2"]);
    assert_eq!(preference.choose(&free, &[], 1), ["GPU-1::0"]);
    assert_eq!(preference.choose(&free, &[], 2), ["GPU-1::0", "GPU-0::1"]);
    assert_eq!(
        preference.choose(&free, &strings(&["GPU-1::2"]), 2),
        ["GPU-1::2", "GPU-0::1"]
    );
}

#[test]
fn replicas_are_packed_where_that_is_asked_for() {
    let preference = of(&connected(2, Vec::new()), &format!("{PACKED}{SHARED}"));
    let free = strings(&["GPU-0::0", "GPU-0::1", "GPU-0::2", "GPU-1::1", "GPU-1::2"]);
    assert_eq!(preference.choose(&free, &[], 1), ["GPU-1::1"]);
    assert_eq!(
        preference.choose(&free, &[], 3),
        ["GPU-1::1", "GPU-1::2", "GPU-0::0"]
    );
}

#[test]
fn replicas_of_several_gpus_are_of_those_that_are_well_connected() {
    let node = connected(4, pairs(4, |from, to| if to - from == 2 { 4 } else { 0 }));
    let preference = of(&node, SHARED);
    let all: Vec<String> = planned(&node, SHARED).resources[0]
        .devices
        .iter()
        .map(|d| d.id.clone())
        .collect();
    assert_eq!(preference.choose(&all, &[], 2), ["GPU-0::0", "GPU-2::0"]);
}

/// Pain #7 of the fact sheet `devices`, section 7: each GPU has its own number of replicas.
#[test]
fn with_different_replicas_the_part_that_is_taken_counts() {
    let text = "sharing: {timeSlicing: {resources: [{name: gpu, devices: [0], replicas: 10}, {name: gpu, replicas: 2}]}}";
    let preference = of(&connected(2, Vec::new()), text);
    let mut free: Vec<String> = (3..10).map(|number| format!("GPU-0::{number}")).collect();
    free.push("GPU-1::1".to_owned());
    assert_eq!(preference.choose(&free, &[], 1), ["GPU-0::3"]);
    let whole = "sharing: {timeSlicing: {resources: [{name: gpu, devices: [1], replicas: 2}]}}";
    let preference = of(&connected(2, Vec::new()), whole);
    assert_eq!(
        preference.choose(&strings(&["GPU-0", "GPU-1::0", "GPU-1::1"]), &[], 1),
        ["GPU-1::0"]
    );
}

#[test]
fn mig_devices_are_packed_so_that_whole_gpus_stay_free() {
    let inventory = node(vec![
        cut(0, &["1g.5gb", "1g.5gb"]),
        cut(1, &["1g.5gb", "1g.5gb", "1g.5gb"]),
    ]);
    let preference = of(&inventory, "flags: {migStrategy: single}");
    assert_eq!(
        preference.choose(&strings(&["MIG-0-0", "MIG-0-1", "MIG-1-1", "MIG-1-2"]), &[], 1),
        ["MIG-1-1"]
    );
    assert_eq!(
        preference.choose(
            &strings(&["MIG-0-0", "MIG-0-1", "MIG-1-0", "MIG-1-1", "MIG-1-2"]),
            &strings(&["MIG-1-1"]),
            2
        ),
        ["MIG-1-1", "MIG-1-0"]
    );
}

#[test]
fn ids_that_nobody_knows_come_last_and_requests_that_can_t_be_fulfilled_get_what_there_is() {
    let preference = of(&connected(2, Vec::new()), "");
    let free = strings(&["GPU-9", "GPU-1", "GPU-0", "GPU-1"]);
    assert_eq!(preference.choose(&free, &[], 2), ["GPU-0", "GPU-1"]);
    assert_eq!(preference.choose(&free, &[], 9), ["GPU-0", "GPU-1", "GPU-9"]);
    assert_eq!(preference.choose(&free, &[], 0), [""; 0]);
    assert_eq!(preference.choose(&[], &[], 3), [""; 0]);
    assert_eq!(
        preference.choose(&[], &strings(&["GPU-1", "GPU-8"]), 1),
        ["GPU-1"]
    );
    assert_eq!(
        preference.choose(&free, &strings(&["GPU-8"]), 2),
        ["GPU-8", "GPU-0"]
    );
    let none = Preference::new(
        &Resource {
            name: "nvidia.com/gpu".to_owned(),
            sharing: Sharing::None,
            one_per_container: false,
            devices: Vec::new(),
        },
        &Topology::default(),
        SharingPolicy::Packed,
    );
    assert_eq!(none.choose(&free, &[], 1), ["GPU-9"]);
}

fn reading<T: std::fmt::Debug + Clone>(value: impl Strategy<Value = T>) -> impl Strategy<Value = Reading<T>> {
    prop_oneof![
        6 => value.prop_map(Reading::Value),
        1 => Just(Reading::NotSupported),
        1 => Just(Reading::Failed("timeout".to_owned())),
    ]
}

fn any_links(gpus: u32) -> impl Strategy<Value = Vec<Link>> {
    let path = prop::sample::select(vec![
        PciPath::SingleSwitch,
        PciPath::HostBridge,
        PciPath::NumaNode,
        PciPath::System,
    ]);
    let link = (0..gpus + 1, 0..gpus + 1, reading(path), reading(0_u32..20));
    let link = link.prop_map(|(from, to, path, nvlinks)| Link {
        from,
        to,
        path,
        nvlinks,
    });
    prop::collection::vec(link, 0..30)
}

/// How good a set is, in the test's own words: its pairs, then what its ties to the other free ones cost.
fn worth(preference: &Preference, all: &[usize], set: &[usize]) -> (u64, i128) {
    let sum = |one: &[usize], other: &[usize]| -> u64 {
        let pairs = one.iter().flat_map(|a| other.iter().map(move |b| (*a, *b)));
        pairs
            .filter(|(a, b)| a != b)
            .map(|(a, b)| preference.between(a, b))
            .sum()
    };
    let rest: Vec<usize> = all.iter().copied().filter(|one| !set.contains(one)).collect();
    (sum(set, set) / 2, -i128::from(sum(set, &rest)))
}

proptest! {
    #[test]
    fn of_six_gpus_the_best_set_is_chosen(links in any_links(6), free in 1_usize..64, must in 0_usize..64, size in 1_usize..7) {
        let preference = of(&connected(6, links), "");
        let free: Vec<usize> = (0..6).filter(|at| free >> at & 1 == 1).collect();
        let must: Vec<usize> = free.iter().copied().filter(|at| must >> at & 1 == 1).take(size).collect();
        let size = size.min(free.len());
        let name = |at: &usize| format!("GPU-{at}");
        let available: Vec<String> = free.iter().map(name).collect();
        let must_ids: Vec<String> = must.iter().map(name).collect();
        let chosen = preference.choose(&available, &must_ids, size);
        let chosen: Vec<usize> = chosen.iter().map(|id| id[4..].parse().unwrap()).collect();
        prop_assert_eq!(chosen.len(), size);
        let best = (0_usize..64)
            .map(|set| (0..6).filter(|at| set >> at & 1 == 1).collect::<Vec<_>>())
            .filter(|set| set.len() == size && set.iter().all(|at| free.contains(at)) && must.iter().all(|at| set.contains(at)))
            .map(|set| worth(&preference, &free, &set))
            .max();
        prop_assert_eq!(Some(worth(&preference, &free, &chosen)), best);
    }

    #[test]
    fn what_is_chosen_is_free_has_what_it_must_and_is_of_the_right_size(
        links in any_links(12),
        text in prop::sample::select(vec![String::new(), SHARED.to_owned(), format!("{PACKED}{SHARED}"), "flags: {migStrategy: mixed}".to_owned()]),
        free in prop::collection::vec(any::<bool>(), 40),
        must in prop::collection::vec(any::<bool>(), 40),
        size in 0_usize..40,
    ) {
        let mut inventory = connected(12, links);
        if text.contains("mixed") {
            inventory.gpus = (0..6).map(|at| cut(at, &["1g.5gb", "1g.5gb", "1g.5gb"])).collect();
        }
        let plan = planned(&inventory, &text);
        let preference = of(&inventory, &text);
        let ids = plan.resources[0].devices.iter().map(|device| device.id.clone());
        let available: Vec<String> = ids.zip(&free).filter(|(_, free)| **free).map(|(id, _)| id).collect();
        let must: Vec<String> = available.iter().zip(&must).filter(|(_, must)| **must).map(|(id, _)| id.clone()).take(size).collect();
        let chosen = preference.choose(&available, &must, size);
        prop_assert_eq!(chosen.len(), size.min(available.len()));
        prop_assert!(chosen.iter().all(|id| available.contains(id)));
        prop_assert_eq!(&chosen[..must.len()], &must[..]);
        let mut once = chosen.clone();
        once.sort();
        once.dedup();
        prop_assert_eq!(once.len(), chosen.len());
    }
}

/// Figures for `docs/performance.md`: `cargo test -p pitcrew-core --release -- --ignored --nocapture preferred`.
#[test]
#[ignore = "prints figures, asserts nothing"]
#[expect(clippy::print_stdout, reason = "the figures are what one runs it for")]
fn figures_of_preferred_allocation() {
    let node = connected(8, pairs(8, |from, to| if from / 4 == to / 4 { 4 } else { 1 }));
    let large = connected(16, pairs(16, |_, _| 12));
    let replicas = "sharing: {timeSlicing: {resources: [{name: gpu, replicas: 10}]}}";
    for (what, inventory, text, size) in [
        ("1 of 8 GPUs x 10 replicas", &node, replicas, 1),
        ("8 of 8 GPUs x 10 replicas", &node, replicas, 8),
        ("2 of 8 GPUs", &node, "", 2),
        ("4 of 8 GPUs", &node, "", 4),
        ("2 of 16 GPUs", &large, "", 2),
        ("8 of 16 GPUs", &large, "", 8),
    ] {
        let preference = of(inventory, text);
        let ids: Vec<String> = planned(inventory, text).resources[0]
            .devices
            .iter()
            .map(|d| d.id.clone())
            .collect();
        let mut times: Vec<_> = (0..10_000)
            .map(|_| {
                let start = Instant::now();
                std::hint::black_box(preference.choose(std::hint::black_box(&ids), &[], size));
                start.elapsed()
            })
            .collect();
        times.sort_unstable();
        println!(
            "{what}: median {:?}, p99 {:?}, most {:?}",
            times[5000], times[9900], times[9999]
        );
    }
}
