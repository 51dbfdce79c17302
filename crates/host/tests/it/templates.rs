//! Templates of users give what Go's `text/template` gave for the same template, data and base.

use pitcrew_host::containerd::{Shape, parse_table, render, render_template, template_data};

use crate::base::headers;
use crate::nodes::{fixtures, node};

const CASES: [&str; 3] = ["rke2-plain", "rke2-nvidia-default", "k3s-moved"];

fn lines(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.trim().is_empty()).collect()
}

#[test]
fn every_template_gives_what_go_gives() {
    let mut compared = 0;
    for entry in std::fs::read_dir(fixtures()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let Some(stem) = name.strip_suffix(".tmpl") else {
            continue;
        };
        let template = std::fs::read_to_string(&path).unwrap();
        for case in CASES {
            let shape = Shape {
                version: if name.contains("-v2-") { 2 } else { 3 },
                ..Shape::NEWEST
            };
            let node = node(case);
            let base = render(&shape, &node);
            let ours = render_template(&template, &base, &template_data(&shape, &node));
            let printed = std::fs::read_to_string(fixtures().join(format!("{stem}.{case}.out"))).unwrap();
            compared += 1;
            if printed.starts_with("ERROR") {
                let error = ours.expect_err(&printed);
                assert!(
                    printed.contains(&format!(":{}", error.line)),
                    "{name}: {error} is not {printed}"
                );
                continue;
            }
            let ours = ours.unwrap_or_else(|error| panic!("{name} {case}: {error}"));
            if !template.contains("\"base\"") {
                assert_eq!(lines(&ours), lines(&printed), "{name} {case}");
            }
            // The base is laid out in our own way, so that only what it says can be compared.
            match (parse_table(&ours), parse_table(&printed)) {
                (Ok(ours), Ok(printed)) => assert_eq!(ours, printed, "{name} {case}"),
                (Err(ours), Err(_)) => assert!(ours.what.contains("duplicate"), "{name} {case}: {ours}"),
                (ours, printed) => panic!("{name} {case}: {ours:?}\n{printed:?}"),
            }
            assert_eq!(headers(&ours), headers(&printed), "{name} {case}");
        }
    }
    assert_eq!(compared, 27, "every template in every case");
}

fn render_one(template: &str) -> Result<String, pitcrew_host::containerd::TemplateError> {
    let node = node("rke2-plain");
    render_template(template, "base = true\n", &template_data(&Shape::NEWEST, &node))
}

#[test]
fn what_is_not_known_is_told_with_its_line_and_never_guessed() {
    for (template, line, what) in [
        ("\n{{ .NodeConfig.AgentConfig.NodeIP }}", 2, "`.NodeIP`"),
        ("a\nb\n{{ sprig .Program }}", 3, "`sprig`"),
        ("{{ .NodeConfig.AgentConfig.NodeName }}", 1, "the node's name"),
        ("{{ template \"base\" .NodeConfig }}", 1, "`base`"),
        ("{{ printf \"%5s\" .Program }}", 1, "`%5`"),
        ("{{ .NodeConfig }}", 1, "no text"),
    ] {
        let error = render_one(template).unwrap_err();
        assert!(!error.refused, "{template}: {error}");
        assert_eq!(error.line, line, "{template}: {error}");
        assert!(error.what.contains(what), "{template}: {error}");
    }
}

#[test]
fn what_go_refuses_is_refused() {
    for template in [
        "{{ if .Program }}",
        "{{ end }}",
        "{{ .Program ",
        "{{ \"a }}",
        "{{ template \"other\" . }}",
        "{{ $x }}",
        "{{ break }}",
        "{{ else }}",
        "{{ (.Program }}",
        "{{ .Program.Name }}",
        "{{/* no end",
    ] {
        let error = render_one(template).unwrap_err();
        assert!(error.refused, "{template}: {error}");
    }
}

#[test]
fn what_has_no_end_is_ended() {
    let endless = "{{ define \"a\" }}{{ template \"a\" . }}{{ end }}{{ template \"a\" . }}";
    assert!(render_one(endless).is_err());
    let deep = format!("{}{}", "{{ if true }}".repeat(5000), "{{ end }}".repeat(5000));
    assert!(render_one(&deep).is_err());
    let parentheses = format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000));
    assert!(render_one(&parentheses).is_err());
    let wide = "{{ template \"base\" . }}".repeat(200_000);
    assert!(render_one(&wide).is_err());
    let chain = format!(
        "{{{{ if false }}}}{}{{{{ end }}}}",
        "{{ else if false }}".repeat(5000)
    );
    assert!(render_one(&chain).is_err());
}
