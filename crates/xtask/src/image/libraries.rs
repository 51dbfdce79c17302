//! The C library of an image: this machine's, as the C compiler finds it, with the package that each file is of.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::oci::Layer;
use crate::process;
use crate::testbed::Missing;

/// What our programs and NVIDIA's libraries need, which are loaded into them.
const LIBRARIES: [&str; 6] = [
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "librt.so.1",
    "libgcc_s.so.1",
];
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
/// Where Debian's loader looks by itself.
const DIR: &str = "usr/lib/x86_64-linux-gnu";

/// A package of Debian whose files go into an image.
pub(super) struct Package {
    /// Its name.
    pub(super) name: &'static str,
    /// Its licence, as an SPDX expression.
    pub(super) licence: &'static str,
    /// Texts that its own copyright file refers to, in Debian's directory of common licences.
    pub(super) texts: &'static [&'static str],
}

/// Those that [`LIBRARIES`] are of.
pub(super) const PACKAGES: [Package; 2] = [
    Package {
        name: "libc6",
        licence: "LGPL-2.1-or-later",
        texts: &["LGPL-2.1"],
    },
    Package {
        name: "libgcc-s1",
        licence: "GPL-3.0-or-later WITH GCC-exception-3.1",
        texts: &["GPL-3"],
    },
];

impl Package {
    /// Its version on this machine.
    pub(super) fn version(&self) -> Result<String> {
        let mut query = Command::new("dpkg-query");
        query.args(["-W", "-f", "${Version}", self.name]);
        process::output(&mut query).map_err(|error| {
            let what = format!(
                "the image's C library is Debian's, and there is no {}: {error}",
                self.name
            );
            Missing::new(what, "build the image on Debian 12 or newer").into()
        })
    }

    /// Puts its copyright file, and what that refers to, into a layer.
    pub(super) fn add_licences(&self, layer: &mut Layer) -> Result<()> {
        let copyright = format!("usr/share/doc/{}/copyright", self.name);
        let texts = self
            .texts
            .iter()
            .map(|text| format!("usr/share/common-licenses/{text}"));
        for path in texts.chain([copyright]) {
            let from = Path::new("/").join(&path);
            let text = std::fs::read(&from).with_context(|| format!("could not read {}", from.display()))?;
            layer.file(&path, text, 0o644);
        }
        Ok(())
    }
}

/// The loader and the libraries on this machine.
pub(crate) fn find() -> Result<Vec<PathBuf>> {
    let mut found = vec![PathBuf::from(LOADER)];
    for name in LIBRARIES {
        let path = process::output(Command::new("cc").arg(format!("-print-file-name={name}")))?;
        found.push(path.trim().into());
    }
    Ok(found)
}

/// Puts them where their loader looks, with the links of a merged `/usr`.
pub(crate) fn add(layer: &mut Layer, libraries: &[PathBuf]) -> Result<()> {
    layer.link("lib", "usr/lib");
    layer.link("lib64", "usr/lib64");
    for library in libraries {
        let content =
            std::fs::read(library).with_context(|| format!("could not read {}", library.display()))?;
        let dir = if library == Path::new(LOADER) {
            "usr/lib64"
        } else {
            DIR
        };
        let name = library
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        layer.file(&format!("{dir}/{name}"), content, 0o755);
    }
    Ok(())
}
