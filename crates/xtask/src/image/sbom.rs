//! What an image is made of: the crates that are compiled into its programs, and the packages of its C library. As a
//! `CycloneDX` document, and as the texts of their licences.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::libraries::PACKAGES;
use crate::process;

/// A package of Cargo, by name and version.
type Crate = (String, String);

/// Crates of one program: the package, and whether without its default features.
pub(super) const PROGRAMS: [(&str, bool); 3] = [
    ("pitcrew", true),
    ("pitcrew-hook", false),
    ("pitcrew-scout", false),
];

/// What is known of the crates in an image.
pub(super) struct Crates {
    found: BTreeMap<Crate, Value>,
    checksums: BTreeMap<Crate, String>,
}

impl Crates {
    /// Asks cargo.
    pub(super) fn look(target: &str) -> Result<Self> {
        let mut wanted = BTreeSet::new();
        for (package, is_bare) in PROGRAMS {
            let mut tree = process::cargo();
            tree.args(["tree", "--locked", "--prefix=none", "--format={p}"])
                .args([
                    "--edges=normal,no-proc-macro",
                    "--target",
                    target,
                    "--package",
                    package,
                ]);
            if is_bare {
                tree.arg("--no-default-features");
            }
            wanted.extend(process::output(&mut tree)?.lines().filter_map(of_tree));
        }
        let mut metadata = process::cargo();
        metadata.args([
            "metadata",
            "--locked",
            "--format-version=1",
            "--filter-platform",
            target,
        ]);
        let metadata: Value =
            serde_json::from_str(&process::output(&mut metadata)?).context("cargo's metadata is no JSON")?;
        let known = metadata["packages"].as_array().into_iter().flatten();
        let found = known.filter_map(|package| {
            let text = |key: &str| package[key].as_str().map(str::to_owned);
            let id = (text("name")?, text("version")?);
            wanted.contains(&id).then(|| (id, package.clone()))
        });
        let lock = crate::repository().join("Cargo.lock");
        let lock =
            std::fs::read_to_string(&lock).with_context(|| format!("could not read {}", lock.display()))?;
        Ok(Self {
            found: found.collect(),
            checksums: checksums(&lock),
        })
    }

    /// The `CycloneDX` document; `libraries` are packages of Debian with their versions, `distro` is e.g. `debian-12`.
    pub(super) fn document(&self, version: &str, libraries: &[(&str, String)], distro: &str) -> Value {
        let crates = self.found.iter().map(|(id, package)| {
            let (name, version) = id;
            let purl = format!("pkg:cargo/{name}@{version}");
            let mut component = json!({
                "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl,
            });
            if let Some(checksum) = self.checksums.get(id) {
                component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
            }
            if let Some(licence) = package["license"].as_str() {
                component["licenses"] = json!([{"expression": expression(licence)}]);
            }
            if let Some(url) = package["repository"].as_str() {
                component["externalReferences"] = json!([{"type": "vcs", "url": url}]);
            }
            component
        });
        let libraries = libraries.iter().map(|(name, version)| {
            let purl = format!(
                "pkg:deb/debian/{name}@{}?arch=amd64&distro={distro}",
                version.replace('+', "%2B").replace(':', "%3A")
            );
            let licence = PACKAGES.iter().find(|package| package.name == *name);
            json!({
                "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl,
                "licenses": [{"expression": licence.map_or("", |package| package.licence)}],
            })
        });
        json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": {"component": {"type": "container", "bom-ref": "image", "name": "pitcrew", "version": version}},
            "components": crates.chain(libraries).collect::<Vec<Value>>(),
        })
    }

    /// The texts of all licences, each once, with the crates that it is of.
    pub(super) fn licences(&self) -> String {
        let mut of: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut without = Vec::new();
        for ((name, version), package) in &self.found {
            let Some(dir) = package["manifest_path"]
                .as_str()
                .and_then(|path| Path::new(path).parent())
            else {
                continue;
            };
            // Our own is beside this file.
            if package["source"].is_null() {
                continue;
            }
            let texts = texts(dir);
            if texts.is_empty() {
                let licence = package["license"].as_str().unwrap_or("no licence named");
                without.push(format!("{name} {version}: {}", expression(licence)));
            }
            for text in texts {
                of.entry(text).or_default().push(format!("{name} {version}"));
            }
        }
        let mut texts: Vec<(Vec<String>, String)> =
            of.into_iter().map(|(text, crates)| (crates, text)).collect();
        texts.sort();
        let mut whole = String::new();
        for (crates, text) in texts {
            let _ = write!(whole, "{}\n\n{text}\n{}\n\n", crates.join(", "), "-".repeat(79));
        }
        if !without.is_empty() {
            let _ = writeln!(
                whole,
                "These crates bring no text of their own:\n\n{}",
                without.join("\n")
            );
        }
        whole
    }
}

/// `name` and `version` of a line of `cargo tree`, e.g. `clap v4.6.9 (*)`.
fn of_tree(line: &str) -> Option<Crate> {
    let mut words = line.split_whitespace();
    Some((
        words.next()?.to_owned(),
        words.next()?.strip_prefix('v')?.to_owned(),
    ))
}

/// Checksums of `Cargo.lock`, which cargo writes a key a line.
fn checksums(lock: &str) -> BTreeMap<Crate, String> {
    let of = |block: &str| {
        let value = |key: &str| {
            let line = block
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
            line.map(|value| value.trim_matches('"').to_owned())
        };
        Some(((value("name")?, value("version")?), value("checksum")?))
    };
    lock.split("[[package]]").filter_map(of).collect()
}

/// As SPDX writes it: a slash is what cargo used to take for `OR`.
fn expression(licence: &str) -> String {
    licence
        .replace('/', " OR ")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// Texts of licences and notices in a crate's directory, by file name.
fn texts(dir: &Path) -> Vec<String> {
    const NAMES: [&str; 6] = [
        "LICENSE",
        "LICENCE",
        "COPYING",
        "COPYRIGHT",
        "NOTICE",
        "UNLICENSE",
    ];
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .to_uppercase();
            path.is_file() && NAMES.iter().any(|start| name.starts_with(start))
        })
        .collect();
    files.sort();
    let read = |path: &std::path::PathBuf| {
        let text = std::fs::read(path).ok()?;
        let text = String::from_utf8_lossy(&text).replace("\r\n", "\n");
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    files.iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_cargos_tree_names_a_crate() {
        let id = |name: &str, version: &str| Some((name.to_owned(), version.to_owned()));
        assert_eq!(of_tree("clap v4.6.9 (*)"), id("clap", "4.6.9"));
        assert_eq!(
            of_tree("pitcrew-core v0.1.0 (/somewhere)"),
            id("pitcrew-core", "0.1.0")
        );
        assert_eq!(of_tree(""), None);
    }

    #[test]
    fn checksums_are_read_and_our_own_crates_have_none() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"x\"\nchecksum = \"ff\"\n\n\
                    [[package]]\nname = \"ours\"\nversion = \"0.1.0\"\ndependencies = [\n \"a\",\n]\n";
        let found = checksums(lock);
        assert_eq!(found.len(), 1);
        assert_eq!(found[&("a".to_owned(), "1.0.0".to_owned())], "ff");
    }

    #[test]
    fn licences_are_spdx_expressions() {
        assert_eq!(expression("MIT/Apache-2.0"), "MIT OR Apache-2.0");
        assert_eq!(expression("Unlicense / MIT"), "Unlicense OR MIT");
    }
}
