//! A report as one page for a browser: text, tables and inline SVG, light and dark, nothing to load, no script.

mod bars;
mod device;
mod fleet;
mod nvlinks;
mod overview;
mod peers;
mod sm_map;
mod svg;
mod tables;
mod timeline;

use std::fmt::Write as _;

use pitcrew_core::proof::{Report, Verdict};

use super::{place, plain};

pub(crate) use fleet::fleet_page;

const STYLE: &str = include_str!("html/style.css");

/// The page of one report.
pub(crate) fn page(report: &Report) -> String {
    let node = escaped(&report.evidence.node.name);
    let mut body = hero(report);
    body.push_str(&findings(report));
    body.push_str(&overview::table(report));
    for index in 0..report.evidence.devices.len() {
        body.push_str(&device::section(report, index));
    }
    body.push_str(&peers::section(report));
    body.push_str(&tables::surroundings(report));
    document(&format!("{} {node}", report.verdict), &body)
}

fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n\
         </head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
}

/// Text for an element or an attribute in quotes.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in plain(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Class of a verdict's colour.
fn tone(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "good",
        Verdict::Warn | Verdict::Interrupted | Verdict::ErrorSetup => "low",
        Verdict::FailEnv | Verdict::FailPerf | Verdict::FailHardware | Verdict::FailCorruption => "bad",
    }
}

/// A sentence with its first letter large.
fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn chip(verdict: Verdict) -> String {
    format!("<span class=\"chip {}\">{verdict}</span>", tone(verdict))
}

fn hero(report: &Report) -> String {
    let evidence = &report.evidence;
    let run = &evidence.run;
    let mut facts = vec![
        ("Profile", format!("{}, {:.0} s", run.profile, run.seconds)),
        (
            "Started",
            run.started.to_string().replace('T', " ").replace('Z', " UTC"),
        ),
    ];
    if let Some(driver) = &evidence.driver.version {
        let cuda = evidence
            .driver
            .cuda
            .as_deref()
            .map_or(String::new(), |cuda| format!(", CUDA {}", plain(cuda)));
        facts.push(("Driver", format!("{}{cuda}", plain(driver))));
    }
    if let Some(pod) = &evidence.node.pod {
        facts.push(("Pod", plain(pod)));
    }
    facts.push(("pitcrew", plain(&evidence.tool.version)));
    let mut out = format!(
        "<header class=\"hero {tone}\">\n<p class=\"eyebrow\">pitcrew prove</p>\n<div class=\"verdict\">{verdict}</div>\n\
         <h1>{node}</h1>\n<p class=\"lead\">{meaning}.</p>\n<dl class=\"facts\">\n",
        tone = tone(report.verdict),
        verdict = report.verdict.name().replace('_', " "),
        node = escaped(&evidence.node.name),
        meaning = escaped(&capital(report.verdict.meaning())),
    );
    for (name, value) in facts {
        let _ = writeln!(out, "<div><dt>{name}</dt><dd>{}</dd></div>", escaped(&value));
    }
    out.push_str("</dl>\n</header>\n");
    if let Some(scenario) = &run.scenario {
        let name = escaped(scenario);
        let _ = writeln!(
            out,
            "<p class=\"banner\">Imaginary GPUs: scenario <code>{name}</code>. Nothing was measured.</p>"
        );
    }
    if !run.injected.is_empty() {
        let planted: Vec<String> = run
            .injected
            .iter()
            .map(|fault| format!("<code>{}</code>", escaped(fault)))
            .collect();
        let _ = writeln!(
            out,
            "<p class=\"banner\">Faults were planted on purpose: {}.</p>",
            planted.join(", ")
        );
    }
    out
}

fn findings(report: &Report) -> String {
    let judgement = &report.judgement;
    if judgement.reasons.is_empty() {
        return String::new();
    }
    let mut out = String::from("<section class=\"split\">\n<div>\n<h2>Why</h2>\n<ul class=\"reasons\">\n");
    for reason in &judgement.reasons {
        let (tone, word) = match reason.verdict {
            Verdict::Pass => ("note", "note"),
            verdict => (tone(verdict), verdict.name()),
        };
        let at = place(report, reason.device).map_or(String::new(), |at| format!("<b>{}</b> ", escaped(&at)));
        let _ = writeln!(
            out,
            "<li class=\"{tone}\"><span class=\"word\">{word}</span>{at}{}</li>",
            with_code(&reason.text)
        );
    }
    out.push_str("</ul>\n</div>\n");
    if !judgement.actions.is_empty() {
        out.push_str("<div>\n<h2>What to do</h2>\n<ol class=\"actions\">\n");
        for action in &judgement.actions {
            let _ = writeln!(out, "<li>{}</li>", with_code(action));
        }
        out.push_str("</ol>\n</div>\n");
    }
    out.push_str("</section>\n");
    out
}

/// A sentence of ours, with what stands between backticks as code.
fn with_code(text: &str) -> String {
    let mut out = String::new();
    for (index, part) in text.split('`').enumerate() {
        if index % 2 == 1 {
            let _ = write!(out, "<code>{}</code>", escaped(part));
        } else {
            // `escaped` takes blanks from both ends; they matter here.
            let blank = |end: bool| if end { " " } else { "" };
            let (before, after) = (part.starts_with(' '), part.len() > 1 && part.ends_with(' '));
            let _ = write!(out, "{}{}{}", blank(before), escaped(part), blank(after));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    /// Tags that are opened and not closed, and the other way round: a page that a browser need not mend.
    fn check(page: &str) {
        let mut open: Vec<&str> = Vec::new();
        let mut rest = page;
        while let Some(at) = rest.find('<') {
            rest = &rest[at + 1..];
            let end = rest.find('>').expect("a tag ends");
            let tag = &rest[..end];
            let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
            if tag.starts_with('!') || matches!(name, "meta" | "br") || tag.ends_with('/') {
                continue;
            }
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(name), "before {}", &rest[..rest.len().min(200)]);
            } else {
                open.push(name);
            }
        }
        assert_eq!(open, [] as [&str; 0]);
    }

    #[test]
    fn every_tag_is_closed_and_nothing_is_loaded() {
        for report in [
            example::well(),
            example::sick(),
            example::no_driver(),
            example::eight(),
        ] {
            let page = page(&report);
            check(&page);
            for forbidden in [
                "<script", "http://", "https://", "url(", "@import", "src=", "NaN", "inf\"",
            ] {
                assert!(!page.contains(forbidden), "{forbidden}");
            }
            assert!(page.contains(report.verdict.name().replace('_', " ").as_str()));
        }
        let fleet = pitcrew_core::proof::fleet::compare(&example::fleet());
        check(&fleet_page(&fleet));
    }

    #[test]
    fn of_many_gpus_there_is_one_table_and_only_those_that_failed_are_open() {
        let mut report = example::eight();
        report.judgement.verdicts[5] = Verdict::FailPerf;
        let page = page(&report);
        assert_eq!(
            page.matches("<details class=\"folded\" open><summary><h2>")
                .count(),
            1
        );
        assert_eq!(page.matches("<details class=\"folded\"><summary><h2>").count(), 7);
        for index in 0..8 {
            assert!(page.contains(&format!("<a href=\"#gpu-{index}\">")), "{index}");
            assert!(page.contains(&format!("id=\"gpu-{index}\"")), "{index}");
        }
        assert_eq!(page.matches("18 x 26.6 GB/s").count(), 16);
    }

    #[test]
    fn text_from_outside_stays_text() {
        let mut report = example::sick();
        let hostile = "\"'><script>alert(1)</script>";
        report.evidence.node.name = hostile.to_owned();
        report.evidence.devices[0].device.name = hostile.to_owned();
        report.evidence.devices[0].phases[1].variant = Some(hostile.to_owned());
        report.judgement.reasons[0].text = hostile.to_owned();
        report.judgement.actions[0] = hostile.to_owned();
        let page = page(&report);
        assert!(!page.contains("<script"));
        check(&page);
    }

    #[test]
    fn figures_that_make_no_sense_are_drawn_without_harm() {
        let mut report = example::sick();
        let device = &mut report.evidence.devices[0];
        for (value, sample) in [-1e300, 1e300, 0.0, f64::MAX]
            .into_iter()
            .zip(&mut device.samples)
        {
            sample.at_s = value;
            sample.power_w = Some(value);
            sample.tflops = Some(-value);
        }
        device.phases[1].start_s = f64::MIN;
        device.phases[2].seconds = f64::MAX;
        for figure in &mut report.judgement.figures {
            figure.measured = f64::MAX;
            figure.expected = Some(1e-300);
            figure.ratio = Some(f64::MAX);
        }
        let page = page(&report);
        check(&page);
        assert!(!page.contains("NaN") && page.len() < 4_000_000, "{}", page.len());
    }

    #[test]
    fn code_in_a_sentence_is_code() {
        assert_eq!(
            with_code("Reset it (`nvidia-smi --gpu-reset`), then `a<b` again"),
            "Reset it (<code>nvidia-smi --gpu-reset</code>), then <code>a&lt;b</code> again"
        );
    }
}
