use std::collections::BTreeSet;
use std::path::Path;

use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use pitcrew_apiserver::{ApiError, Fault, Match, Verb};
use serde_json::json;
use tokio::task::JoinHandle;

use super::*;
use crate::node;
use crate::testing::{Bench, NODE, by, until};

/// A configuration to test with: a word.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Word(String);

fn parse(text: &str) -> Result<Word, String> {
    match text.trim() {
        "" => Ok(Word("default".to_owned())),
        word if word.chars().all(char::is_alphanumeric) => Ok(Word(word.to_owned())),
        other => Err(format!("line 1: `{other}` is no word")),
    }
}

struct Kept {
    chosen: watch::Receiver<Option<Arc<Chosen<Word>>>>,
    problem: watch::Receiver<Option<Problem>>,
    spec: watch::Sender<Option<GpuNodeSpec>>,
    tasks: [JoinHandle<()>; 2],
}

impl Kept {
    /// Nothing is wanted of the node.
    fn start(bench: &Bench, sources: Sources) -> Self {
        Self::wanting(bench, sources, Some(GpuNodeSpec::default()))
    }

    fn wanting(bench: &Bench, sources: Sources, spec: Option<GpuNodeSpec>) -> Self {
        let (spec, wanted) = watch::channel(spec);
        let (chosen, receiver) = watch::channel(None);
        let (problem, problems) = watch::channel(None);
        let (known, node) = watch::channel(None);
        let deps = Arc::clone(&bench.deps);
        let follows = tokio::spawn(async move { node::follow(&deps, known).await });
        let deps = Arc::clone(&bench.deps);
        let channels = Channels {
            node,
            wanted,
            chosen,
            problem,
        };
        let keeps = tokio::spawn(async move { keep(&deps, &sources, parse, channels).await });
        Self {
            chosen: receiver,
            problem: problems,
            spec,
            tasks: [follows, keeps],
        }
    }

    /// Name and word of what is in force.
    fn word(&self) -> Option<(Option<String>, String)> {
        let chosen = self.chosen.borrow();
        chosen
            .as_ref()
            .map(|chosen| (chosen.name.clone(), chosen.config.0.clone()))
    }

    async fn comes_to(&self, name: Option<&str>, word: &str) {
        let wanted = Some((name.map(str::to_owned), word.to_owned()));
        let is_so = || async { self.word() == wanted && self.problem.borrow().is_none() };
        until(&format!("{wanted:?}"), is_so).await;
    }

    /// Waits for a problem; its message.
    async fn fails(&self, reason: &str) -> String {
        let is_so = || async {
            self.problem
                .borrow()
                .as_ref()
                .is_some_and(|problem| problem.reason == reason)
        };
        until(reason, is_so).await;
        self.problem.borrow().as_ref().unwrap().message.clone()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn from(source: Source) -> Sources {
    Sources {
        source,
        ..Sources::default()
    }
}

fn at(bench: &Bench, path: &str) -> Sources {
    from(Source::Path(bench.path(path)))
}

fn map() -> Sources {
    from(Source::ConfigMap {
        namespace: "default".to_owned(),
        name: "plugin".to_owned(),
    })
}

fn maps(bench: &Bench) -> Api<ConfigMap> {
    Api::default_namespaced(bench.client())
}

async fn create_map(bench: &Bench, data: serde_json::Value) {
    let map = json!({"metadata": {"name": "plugin"}, "data": data});
    let map = serde_json::from_value(map).unwrap();
    maps(bench).create(&PostParams::default(), &map).await.unwrap();
}

async fn patch_map(bench: &Bench, data: serde_json::Value) {
    let patch = json!({"data": data});
    let params = PatchParams::default();
    maps(bench)
        .patch("plugin", &params, &Patch::Merge(&patch))
        .await
        .unwrap();
}

async fn label(bench: &Bench, name: Option<&str>) {
    bench.label("kubectl-label", json!({LABEL: name})).await;
}

async fn quiet() {
    tokio::time::sleep(Duration::from_secs(30)).await;
}

#[test]
fn label_default_and_fallbacks_count_in_this_order() {
    use Fallback::{Empty, Named, Single};
    let all = [Named, Single, Empty];
    let of = |names: &[&'static str], label: Option<&str>, default, fallbacks: &[Fallback]| {
        let names: BTreeSet<&str> = names.iter().copied().collect();
        match select(&names, label.map(By::Label), default, fallbacks) {
            Ok(Choice::Named(name)) => name.to_owned(),
            Ok(Choice::Empty) => "nothing".to_owned(),
            Err(error) => error.to_string(),
        }
    };
    assert_eq!(of(&["a", "b", "default"], Some("a"), Some("b"), &all), "a");
    assert_eq!(of(&["a", "b", "default"], None, Some("b"), &all), "b");
    assert_eq!(of(&["a", "b", "default"], None, Some(""), &all), "default");
    assert_eq!(of(&["a", "b", "default"], None, None, &all), "default");
    assert_eq!(of(&["a"], None, None, &all), "a");
    assert_eq!(of(&["a", "b"], None, None, &all), "nothing");
    assert_eq!(of(&[], None, None, &all), "nothing");
    assert_eq!(of(&["a", "default"], None, None, &[Empty, Named]), "nothing");
    assert_eq!(
        of(&["a", "b"], Some("c"), Some("b"), &all),
        "label nvidia.com/device-plugin.config names configuration `c`, which isn't there; there are `a`, `b`"
    );
    assert_eq!(
        of(&["a"], None, Some("c"), &all),
        "the default configuration `c` isn't there; there is `a`"
    );
    assert_eq!(
        of(&[], None, None, &[Named, Single]),
        "neither label nvidia.com/device-plugin.config nor a default says which configuration counts; there is none"
    );
}

#[tokio::test(start_paused = true)]
async fn where_nothing_was_asked_for_the_defaults_are_in_force_at_once() {
    let bench = Bench::without_node("t4");
    let kept = Kept::start(&bench, Sources::default());
    kept.comes_to(None, "default").await;
}

#[tokio::test(start_paused = true)]
async fn one_file_counts_whatever_the_label_says_and_is_read_again_when_it_changes() {
    let mut bench = Bench::new("t4").await;
    label(&bench, Some("other")).await;
    std::fs::write(bench.path("config.yaml"), "one").unwrap();
    let kept = Kept::start(&bench, at(&bench, "config.yaml"));
    kept.comes_to(None, "one").await;
    std::fs::write(bench.path("config.yaml"), "two").unwrap();
    kept.comes_to(None, "two").await;
    // Another file in its place, as editors do it.
    std::fs::write(bench.path("new"), "six").unwrap();
    std::fs::rename(bench.path("new"), bench.path("config.yaml")).unwrap();
    kept.comes_to(None, "six").await;
    std::fs::write(bench.path("config.yaml"), "not a word").unwrap();
    let message = kept.fails("ConfigInvalid").await;
    assert!(message.contains("line 1: `not a word` is no word"), "{message}");
    assert!(message.ends_with("the last good one stays in force"), "{message}");
    assert_eq!(kept.word(), Some((None, "six".to_owned())));
    quiet().await;
    let told = bench.told();
    let errors = told.iter().filter(|text| text.contains("is no word"));
    assert_eq!(errors.count(), 1, "{told:?}");
    std::fs::remove_file(bench.path("config.yaml")).unwrap();
    let message = kept.fails("ConfigUnreadable").await;
    assert!(message.contains("it isn't there"), "{message}");
    assert_eq!(kept.word(), Some((None, "six".to_owned())));
    std::fs::write(bench.path("config.yaml"), "ten").unwrap();
    kept.comes_to(None, "ten").await;
}

#[tokio::test(start_paused = true)]
async fn without_a_good_one_nothing_is_in_force() {
    let bench = Bench::new("t4").await;
    let kept = Kept::start(&bench, at(&bench, "config.yaml"));
    let message = kept.fails("ConfigUnreadable").await;
    assert!(
        message.ends_with("nothing is offered until there is a good one"),
        "{message}"
    );
    std::fs::write(bench.path("config.yaml"), "?").unwrap();
    kept.fails("ConfigInvalid").await;
    assert_eq!(kept.word(), None);
    std::fs::write(bench.path("config.yaml"), "").unwrap();
    kept.comes_to(None, "default").await;
}

/// Puts these files there as the kubelet does with a `ConfigMap`: under a link to a directory of their own.
fn mount(directory: &Path, version: &str, files: &[(&str, &str)]) {
    let data = directory.join(format!("..{version}"));
    std::fs::create_dir_all(&data).unwrap();
    for (name, text) in files {
        std::fs::write(data.join(name), text).unwrap();
        let _ = std::os::unix::fs::symlink(Path::new("..data").join(name), directory.join(name));
    }
    std::os::unix::fs::symlink(format!("..{version}"), directory.join("..data_tmp")).unwrap();
    std::fs::rename(directory.join("..data_tmp"), directory.join("..data")).unwrap();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if !path.exists() {
            std::fs::remove_file(path).unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_mounted_config_map_is_chosen_from_by_the_nodes_label_and_swapped_under_us() {
    let bench = Bench::new("t4").await;
    let directory = bench.path("configs");
    mount(
        &directory,
        "one",
        &[("default", "plain"), ("shared", "four"), ("broken", "?")],
    );
    let kept = Kept::start(&bench, at(&bench, "configs"));
    kept.comes_to(Some("default"), "plain").await;
    label(&bench, Some("shared")).await;
    kept.comes_to(Some("shared"), "four").await;
    mount(
        &directory,
        "two",
        &[("default", "plain"), ("shared", "eight"), ("broken", "?")],
    );
    kept.comes_to(Some("shared"), "eight").await;
    label(&bench, Some("broken")).await;
    let message = kept.fails("ConfigInvalid").await;
    assert!(message.contains("configuration `broken` of"), "{message}");
    assert!(
        message.ends_with("the last good one, `shared`, stays in force"),
        "{message}"
    );
    label(&bench, Some("data")).await;
    let message = kept.fails("ConfigUnknown").await;
    assert!(
        message.contains("there are `broken`, `default`, `shared`"),
        "{message}"
    );
    assert_eq!(kept.word(), Some((Some("shared".to_owned()), "eight".to_owned())));
    label(&bench, None).await;
    kept.comes_to(Some("default"), "plain").await;
    // One that is taken away while it counts.
    mount(&directory, "three", &[("shared", "eight"), ("broken", "?")]);
    std::fs::remove_dir_all(directory.join("..two")).unwrap();
    kept.comes_to(None, "default").await;
    label(&bench, Some("")).await;
    quiet().await;
    assert_eq!(kept.word(), Some((None, "default".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn a_config_map_is_followed_through_the_api_server() {
    let mut bench = Bench::new("t4").await;
    let mut sources = map();
    sources.default = Some("plain".to_owned());
    let kept = Kept::start(&bench, sources);
    let message = kept.fails("ConfigUnreadable").await;
    assert!(
        message.contains("ConfigMap `plugin` in namespace `default` isn't there"),
        "{message}"
    );
    create_map(&bench, json!({"plain": "one", "shared": "four"})).await;
    kept.comes_to(Some("plain"), "one").await;
    label(&bench, Some("shared")).await;
    kept.comes_to(Some("shared"), "four").await;
    // The reference doesn't notice this.
    patch_map(&bench, json!({"shared": "eight"})).await;
    kept.comes_to(Some("shared"), "eight").await;
    patch_map(&bench, json!({"shared": "a: b: c"})).await;
    let message = kept.fails("ConfigInvalid").await;
    assert!(message.contains("`a: b: c` is no word"), "{message}");
    patch_map(&bench, json!({"shared": null})).await;
    kept.fails("ConfigUnknown").await;
    maps(&bench)
        .delete("plugin", &DeleteParams::default())
        .await
        .unwrap();
    kept.fails("ConfigUnreadable").await;
    assert_eq!(kept.word(), Some((Some("shared".to_owned()), "eight".to_owned())));
    create_map(&bench, json!({"shared": "two"})).await;
    kept.comes_to(Some("shared"), "two").await;
    assert!(bench.told().contains(
        &"configuration `shared` of ConfigMap `plugin` in namespace `default` is in force".to_owned()
    ));
}

#[tokio::test(start_paused = true)]
async fn what_is_in_force_survives_an_api_server_that_is_away() {
    let mut bench = Bench::new("t4").await;
    create_map(&bench, json!({"plain": "one", "shared": "four"})).await;
    label(&bench, Some("shared")).await;
    let kept = Kept::start(&bench, map());
    kept.comes_to(Some("shared"), "four").await;
    let faults = bench.server.faults();
    let down = Fault::Error(ApiError::new(503, "etcdserver: no leader"));
    faults.fail(Match::default().verb(Verb::Watch), down, 16);
    faults.expire_watches(Match::default());
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(kept.word(), Some((Some("shared".to_owned()), "four".to_owned())));
    let told = bench.told();
    let away = told
        .iter()
        .filter(|text| text.contains("ConfigMap `plugin`") && text.contains("can't be read"));
    assert_eq!(away.count(), 1, "{told:?}");
    patch_map(&bench, json!({"shared": "two"})).await;
    kept.comes_to(Some("shared"), "two").await;
}

#[tokio::test(start_paused = true)]
async fn no_configuration_is_guessed_while_the_label_can_not_be_read() {
    let bench = Bench::without_node("t4");
    std::fs::create_dir(bench.path("configs")).unwrap();
    std::fs::write(bench.path("configs/default"), "plain").unwrap();
    std::fs::write(bench.path("configs/shared"), "four").unwrap();
    let kept = Kept::start(&bench, at(&bench, "configs"));
    kept.fails("NodeUnknown").await;
    assert_eq!(kept.word(), None);
    let node = json!({"metadata": {"name": NODE, "labels": {LABEL: "shared"}}});
    let node = serde_json::from_value(node).unwrap();
    bench.nodes().create(&by("kubelet"), &node).await.unwrap();
    kept.comes_to(Some("shared"), "four").await;
}

#[tokio::test(start_paused = true)]
async fn a_node_on_its_own_has_no_label() {
    let bench = Bench::without_node("t4");
    std::fs::create_dir_all(bench.path("configs/a-directory")).unwrap();
    std::fs::write(bench.path("configs/default"), "plain").unwrap();
    std::fs::write(bench.path("configs/no-text"), [0xff, 0xfe]).unwrap();
    let mut deps = bench;
    Arc::get_mut(&mut deps.deps).unwrap().client = None;
    let kept = Kept::start(&deps, at(&deps, "configs"));
    kept.comes_to(Some("default"), "plain").await;
    let kept = Kept::start(&deps, map());
    kept.fails("ConfigUnreadable").await;
    let mut sources = at(&deps, "configs");
    sources.default = Some("no-text".to_owned());
    let kept = Kept::start(&deps, sources);
    let message = kept.fails("ConfigUnreadable").await;
    assert!(message.contains("it is no text in UTF-8"), "{message}");
}

fn named(name: &str) -> GpuNodeSpec {
    GpuNodeSpec {
        config: Some(name.to_owned()),
        ..GpuNodeSpec::default()
    }
}

fn inline(text: &str) -> GpuNodeSpec {
    GpuNodeSpec {
        inline_config: Some(text.to_owned()),
        ..GpuNodeSpec::default()
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_gpu_node_wants_counts_above_defaults_and_below_the_nodes_label() {
    let mut bench = Bench::new("t4").await;
    create_map(&bench, json!({"plain": "one", "shared": "four", "mine": "two"})).await;
    let mut sources = map();
    sources.default = Some("plain".to_owned());
    let kept = Kept::wanting(&bench, sources, Some(named("shared")));
    kept.comes_to(Some("shared"), "four").await;
    label(&bench, Some("mine")).await;
    kept.comes_to(Some("mine"), "two").await;
    kept.spec.send_replace(Some(inline("twelve")));
    quiet().await;
    assert_eq!(
        kept.word(),
        Some((Some("mine".to_owned()), "two".to_owned())),
        "the label stands above it"
    );
    label(&bench, None).await;
    kept.comes_to(None, "twelve").await;
    kept.spec.send_replace(Some(inline("twenty")));
    kept.comes_to(None, "twenty").await;
    assert!(
        bench
            .told()
            .contains(&format!("the configuration in GpuNode `{NODE}` is in force"))
    );
    kept.spec.send_replace(Some(inline("a: b")));
    let message = kept.fails("ConfigInvalid").await;
    assert!(
        message.starts_with(&format!("the configuration in GpuNode `{NODE}` is wrong: line 1")),
        "{message}"
    );
    assert!(message.ends_with("the last good one stays in force"), "{message}");
    let hint = kept.problem.borrow().as_ref().unwrap().hint.clone();
    assert!(hint.contains(&format!("kubectl edit gpunode {NODE}")), "{hint}");
    assert_eq!(kept.word(), Some((None, "twenty".to_owned())));
    kept.spec.send_replace(Some(named("nobody")));
    let message = kept.fails("ConfigUnknown").await;
    assert!(
        message.contains("the GpuNode names configuration `nobody`"),
        "{message}"
    );
    assert_eq!(kept.word(), Some((None, "twenty".to_owned())));
    kept.spec.send_replace(Some(GpuNodeSpec::default()));
    kept.comes_to(Some("plain"), "one").await;
}

/// A `ConfigMap` that is away keeps nobody from what the object itself holds, and a label still stands above it.
#[tokio::test(start_paused = true)]
async fn a_configuration_in_the_gpu_node_needs_no_other_source() {
    let bench = Bench::new("t4").await;
    let kept = Kept::wanting(&bench, Sources::default(), Some(inline("four")));
    kept.comes_to(None, "four").await;
    label(&bench, Some("of-no-meaning-without-a-choice")).await;
    quiet().await;
    assert_eq!(kept.word(), Some((None, "four".to_owned())));
    kept.spec.send_replace(Some(named("shared")));
    let message = kept.fails("ConfigUnknown").await;
    assert!(
        message.contains("was given none with names: it has the defaults"),
        "{message}"
    );
    kept.spec.send_replace(Some(GpuNodeSpec::default()));
    kept.comes_to(None, "default").await;
    let kept = Kept::wanting(&bench, map(), Some(inline("six")));
    kept.fails("ConfigUnreadable").await;
    assert_eq!(kept.word(), None);
    label(&bench, None).await;
    kept.comes_to(None, "six").await;
}

#[tokio::test(start_paused = true)]
async fn a_gpu_node_is_waited_for_and_not_for_long() {
    let bench = Bench::new("t4").await;
    let kept = Kept::wanting(&bench, Sources::default(), None);
    tokio::time::sleep(SPEC_PATIENCE.mul_f64(0.9)).await;
    assert_eq!(kept.word(), None);
    kept.comes_to(None, "default").await;
    kept.spec.send_replace(Some(inline("four")));
    kept.comes_to(None, "four").await;
    let kept = Kept::wanting(&bench, Sources::default(), None);
    let start = Instant::now();
    kept.spec.send_replace(Some(inline("six")));
    kept.comes_to(None, "six").await;
    assert!(start.elapsed() < SPEC_PATIENCE);
}
