//! The next start of every imaginary host root, as planned: without a containerd to ask, what is found by reading.

use std::fmt::Write as _;
use std::path::Path;

use pitcrew_host::Host;
use pitcrew_host::containerd::next_boot::plan;
use pitcrew_scenario::HostRoot;

#[test]
fn the_next_start_of_every_root_is_as_planned() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/roots");
    let mut names: Vec<String> = std::fs::read_dir(&dir)
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".yaml").map(str::to_owned))
        .collect();
    names.sort();
    let find = |name: &str| {
        HostRoot::builtin_text(name)
            .map(str::to_owned)
            .or_else(|| std::fs::read_to_string(dir.join(format!("{name}.yaml"))).ok())
    };
    let mut told = String::new();
    for name in &names {
        let text = std::fs::read_to_string(dir.join(format!("{name}.yaml"))).unwrap();
        let root = HostRoot::parse(&text, name, &find).unwrap();
        match plan(&Host::gather(&root), &root) {
            None => {
                let _ = writeln!(told, "{name}: no containerd");
            }
            Some(plan) => {
                let _ = writeln!(told, "{name}: {:?} from {:?}", plan.verdict(), plan.source);
                for difference in &plan.differences {
                    let _ = writeln!(told, "  {difference}");
                }
                for problem in &plan.problems {
                    let _ = writeln!(told, "  [{}] {problem}", problem.kind.id());
                }
                for line in &plan.lines {
                    let _ = writeln!(told, "  {line}");
                }
            }
        }
    }
    assert!(names.len() >= 16, "{names:?}");
    insta::assert_snapshot!(told);
}
