//! From a table to the few facts that matter to GPUs.

use super::tree::{self, Table, Value};
use super::{ConfigError, Generation, parse_table};
use crate::facts::ContainerdConfig;

/// The CRI plugin's section by version of the file.
const CRI_V1: &str = "cri";
const CRI_V2: &str = "io.containerd.grpc.v1.cri";
const CRI_V3: &str = "io.containerd.cri.v1.runtime";
const NRI: &str = "io.containerd.nri.v1.nri";

/// Reads one file of containerd's configuration, versions 1 to 3, without what it imports.
///
/// A file that says version 4 is read as version 3: containerd's own `config dump` writes its newest version.
///
/// # Errors
/// Where it isn't TOML, or a key that matters has a value of another kind; containerd refuses both.
pub fn parse(text: &str) -> Result<ContainerdConfig, ConfigError> {
    let table = parse_table(text)?;
    let version = version(&table).map_err(|error| placed(error, text, &["version"]))?;
    extract(&table, version, cri_section(version)).map_err(|(error, path)| {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        placed(error, text, &path)
    })
}

fn placed(error: ConfigError, text: &str, path: &[&str]) -> ConfigError {
    let at = tree::locate(text, path);
    error.at(at)
}

/// `version` of a file; one without it is 1.
pub(super) fn version(table: &Table) -> Result<u32, ConfigError> {
    match table.get("version") {
        None | Some(Value::Integer(0)) => Ok(1),
        Some(Value::Integer(number)) => u32::try_from(*number).map_err(|_| {
            ConfigError::new(format!("{number} is no version of a configuration")).key("version")
        }),
        Some(other) => Err(wrong_kind(other, "an integer", "version")),
    }
}

/// The CRI plugin's section in a file of this version.
pub(super) fn cri_section(version: u32) -> &'static str {
    match version {
        0 | 1 => CRI_V1,
        2 => CRI_V2,
        _ => CRI_V3,
    }
}

/// The section that a containerd reads in the end, for the version that is left after merging.
pub(super) fn cri_section_in_force(generation: Generation, version: u32) -> &'static str {
    match generation {
        Generation::One => cri_section(version),
        Generation::Two => CRI_V3,
    }
}

/// The name that CRI's section has in version 2.
pub(super) const fn cri_v2() -> &'static str {
    CRI_V2
}

/// The name that the section of CRI's runtime part has in version 3.
pub(super) const fn cri_v3() -> &'static str {
    CRI_V3
}

/// A value of the wrong kind, with the keys that lead to it.
pub(super) type Misfit = (ConfigError, Vec<String>);

/// Picks out what matters.
pub(super) fn extract(table: &Table, version: u32, section: &str) -> Result<ContainerdConfig, Misfit> {
    let reader = Reader { table };
    let cri = ["plugins", section];
    let containerd = ["plugins", section, "containerd"];
    let nri = if version < 2 { "nri" } else { NRI };
    Ok(ContainerdConfig {
        version,
        handlers: reader.handlers(&containerd)?,
        default_handler: reader
            .string(&[&containerd[..], &["default_runtime_name"]].concat())?
            .filter(|name| !name.is_empty()),
        enable_cdi: reader.boolean(&[&cri[..], &["enable_cdi"]].concat())?,
        cdi_dirs: reader.strings(&[&cri[..], &["cdi_spec_dirs"]].concat())?,
        nri_disabled: reader.boolean(&["plugins", nri, "disable"])?,
        enable_selinux: reader.boolean(&[&cri[..], &["enable_selinux"]].concat())?,
        imports: reader.strings(&["imports"])?.unwrap_or_default(),
    })
}

struct Reader<'a> {
    table: &'a Table,
}

impl<'a> Reader<'a> {
    /// What is at a path; a table on the way that is none is a misfit.
    fn at(&self, path: &[&str]) -> Result<Option<&'a Value>, Misfit> {
        let mut at = self.table;
        for (depth, key) in path.iter().enumerate() {
            let Some(found) = at.get(*key) else {
                return Ok(None);
            };
            if depth + 1 == path.len() {
                return Ok(Some(found));
            }
            at = match found {
                Value::Table(table) => table,
                other => return Err(misfit(other, "a table", &path[..=depth])),
            };
        }
        Ok(None)
    }

    fn string(&self, path: &[&str]) -> Result<Option<String>, Misfit> {
        match self.at(path)? {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(misfit(other, "a string", path)),
        }
    }

    fn boolean(&self, path: &[&str]) -> Result<Option<bool>, Misfit> {
        match self.at(path)? {
            None => Ok(None),
            Some(Value::Boolean(flag)) => Ok(Some(*flag)),
            Some(other) => Err(misfit(other, "a boolean", path)),
        }
    }

    fn strings(&self, path: &[&str]) -> Result<Option<Vec<String>>, Misfit> {
        let Some(found) = self.at(path)? else {
            return Ok(None);
        };
        let Value::Array(items) = found else {
            return Err(misfit(found, "an array of strings", path));
        };
        let texts = items.iter().map(|item| match item {
            Value::String(text) => Ok(text.clone()),
            other => Err(misfit(other, "a string", path)),
        });
        texts.collect::<Result<_, _>>().map(Some)
    }

    fn handlers(&self, containerd: &[&str]) -> Result<Vec<(String, String)>, Misfit> {
        let path = [containerd, &["runtimes"]].concat();
        let Some(found) = self.at(&path)? else {
            return Ok(Vec::new());
        };
        let Value::Table(runtimes) = found else {
            return Err(misfit(found, "a table", &path));
        };
        runtimes
            .keys()
            .map(|name| {
                let binary = [&path[..], &[name.as_str(), "options", "BinaryName"]].concat();
                Ok((name.clone(), self.string(&binary)?.unwrap_or_default()))
            })
            .collect()
    }
}

fn misfit(found: &Value, wanted: &str, path: &[&str]) -> Misfit {
    let error = wrong_kind(found, wanted, &tree::dotted(path));
    (error, path.iter().map(|key| (*key).to_owned()).collect())
}

fn wrong_kind(found: &Value, wanted: &str, key: &str) -> ConfigError {
    ConfigError::new(format!("{} stands where {wanted} must", found.kind())).key(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_3_is_read_with_single_quoted_keys() {
        let text = r#"
version = 3
imports = ["/x/*.toml"]
[plugins.'io.containerd.cri.v1.runtime']
  enable_selinux = true
  enable_cdi = false
  cdi_spec_dirs = ["/etc/cdi"]
[plugins.'io.containerd.cri.v1.runtime'.containerd]
  default_runtime_name = "nvidia"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.'nvidia']
  runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.'nvidia'.options]
  BinaryName = "/usr/local/nvidia/toolkit/nvidia-container-runtime"
[plugins.'io.containerd.nri.v1.nri']
  disable = true
"#;
        let config = parse(text).unwrap();
        assert_eq!(config.version, 3);
        assert_eq!(
            config.handlers,
            [
                (
                    "nvidia".to_owned(),
                    "/usr/local/nvidia/toolkit/nvidia-container-runtime".to_owned()
                ),
                ("runc".to_owned(), String::new()),
            ]
        );
        assert_eq!(config.default_handler.as_deref(), Some("nvidia"));
        assert_eq!(config.enable_cdi, Some(false));
        assert_eq!(config.cdi_dirs, Some(vec!["/etc/cdi".to_owned()]));
        assert_eq!(config.enable_selinux, Some(true));
        assert_eq!(config.nri_disabled, Some(true));
        assert_eq!(config.imports, ["/x/*.toml"]);
    }

    #[test]
    fn a_file_without_a_version_is_version_1_with_short_names() {
        let config =
            parse("[plugins.cri.containerd.runtimes.nvidia.options]\nBinaryName = \"/x\"\n").unwrap();
        assert_eq!(config.version, 1);
        assert_eq!(config.handlers, [("nvidia".to_owned(), "/x".to_owned())]);
    }

    #[test]
    fn sections_of_another_version_are_not_read() {
        let config =
            parse("version = 2\n[plugins.'io.containerd.cri.v1.runtime']\nenable_cdi = true\n").unwrap();
        assert_eq!(config.enable_cdi, None);
        let config =
            parse("version = 3\n[plugins.'io.containerd.grpc.v1.cri']\nenable_cdi = true\n").unwrap();
        assert_eq!(config.enable_cdi, None);
    }

    #[test]
    fn a_value_of_another_kind_is_named_with_line_and_key() {
        let text = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  enable_cdi = \"yes\"\n";
        let error = parse(text).unwrap_err();
        assert_eq!(
            error.to_string(),
            "line 3, column 16: a string stands where a boolean must \
             (`plugins.\"io.containerd.grpc.v1.cri\".enable_cdi`)"
        );
        assert_eq!(parse("version = \"2\"").unwrap_err().at, Some((1, 11)));
        assert!(parse("version = -1").is_err());
    }
}
