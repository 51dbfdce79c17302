//! Image archives: OCI's layout in a tar, which containerd's `ctr images import` takes, and with Docker's list in it, so
//! that `docker load` of any age does too. The same content makes the same bytes.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::testbed::hex;

/// What is at a path of a layer.
enum Entry {
    Directory { mode: u32 },
    File { content: Vec<u8>, mode: u32 },
    Link { target: String },
}

/// A layer of an image. Everything in it is root's, from 1970, and comes in the order of paths.
#[derive(Default)]
pub(crate) struct Layer {
    entries: BTreeMap<String, Entry>,
}

impl Layer {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A directory, and those above it.
    pub(crate) fn directory(&mut self, path: &str, mode: u32) {
        self.add(path, Entry::Directory { mode });
    }

    /// A file, and the directories above it.
    pub(crate) fn file(&mut self, path: &str, content: impl Into<Vec<u8>>, mode: u32) {
        let content = content.into();
        self.add(path, Entry::File { content, mode });
    }

    /// A symbolic link, and the directories above it.
    pub(crate) fn link(&mut self, path: &str, target: &str) {
        let target = target.to_owned();
        self.add(path, Entry::Link { target });
    }

    fn add(&mut self, path: &str, entry: Entry) {
        let path = path.trim_matches('/');
        for (end, _) in path.match_indices('/') {
            let above = self.entries.entry(path[..end].to_owned());
            above.or_insert(Entry::Directory { mode: 0o755 });
        }
        self.entries.insert(path.to_owned(), entry);
    }

    /// As a tar archive.
    fn pack(self) -> Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, entry) in self.entries {
            match entry {
                Entry::Directory { mode } => {
                    let mut header = header(tar::EntryType::Directory, 0, mode);
                    archive.append_data(&mut header, format!("{path}/"), std::io::empty())
                }
                Entry::File { content, mode } => {
                    let mut header = header(tar::EntryType::Regular, content.len(), mode);
                    archive.append_data(&mut header, &path, content.as_slice())
                }
                Entry::Link { target } => {
                    let mut header = header(tar::EntryType::Symlink, 0, 0o777);
                    archive.append_link(&mut header, &path, target)
                }
            }
            .with_context(|| format!("could not pack {path}"))?;
        }
        Ok(archive.into_inner()?)
    }
}

fn header(kind: tar::EntryType, size: usize, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(size as u64);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// An image.
pub(crate) struct Image<'a> {
    /// Its name in full, e.g. `localhost/busybox:1`.
    pub(crate) name: &'a str,
    /// What a container starts with: `config` of OCI's image configuration.
    pub(crate) config: Value,
    /// Its annotations.
    pub(crate) annotations: Value,
    /// Its layers, lowest first.
    pub(crate) layers: Vec<Layer>,
    /// Whether the layers are compressed.
    pub(crate) compressed: bool,
}

/// Writes an image's archive and gives its size in bytes.
pub(crate) fn save(image: Image<'_>, out: &Path) -> Result<u64> {
    let mut blobs = Vec::new();
    let (mut layers, mut diff_ids, mut places) = (Vec::new(), Vec::new(), Vec::new());
    let created_by = |_: &Layer| json!({"created": EPOCH, "created_by": "xtask"});
    let history: Vec<Value> = image.layers.iter().map(created_by).collect();
    for layer in image.layers {
        let plain = Blob::new(layer.pack()?);
        diff_ids.push(plain.digest.clone());
        let (kind, blob) = if image.compressed {
            ("layer.v1.tar+gzip", Blob::new(compress(&plain.bytes)?))
        } else {
            ("layer.v1.tar", plain)
        };
        layers.push(blob.descriptor(kind));
        places.push(blob.place());
        blobs.push(blob);
    }
    let config = Blob::new(serde_json::to_vec(&json!({
        "created": EPOCH,
        "architecture": "amd64",
        "os": "linux",
        "config": image.config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": history,
    }))?);
    let manifest = Blob::new(serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.descriptor("config.v1+json"),
        "layers": layers,
        "annotations": image.annotations,
    }))?);
    let mut entry = manifest.descriptor("manifest.v1+json");
    let tag = image.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    entry["platform"] = json!({"architecture": "amd64", "os": "linux"});
    entry["annotations"] =
        json!({"io.containerd.image.name": image.name, "org.opencontainers.image.ref.name": tag});
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry],
    });
    let docker = json!([{"Config": config.place(), "RepoTags": [image.name], "Layers": places}]);

    let mut archive = Layer::new();
    archive.file("oci-layout", &br#"{"imageLayoutVersion":"1.0.0"}"#[..], 0o644);
    archive.file("index.json", serde_json::to_vec(&index)?, 0o644);
    archive.file("manifest.json", serde_json::to_vec(&docker)?, 0o644);
    for blob in blobs.into_iter().chain([config, manifest]) {
        archive.file(&blob.place(), blob.bytes, 0o644);
    }
    let bytes = archive.pack()?;
    std::fs::write(out, &bytes).with_context(|| format!("could not write {}", out.display()))?;
    Ok(bytes.len() as u64)
}

const EPOCH: &str = "1970-01-01T00:00:00Z";

/// gzip without a name or a time.
fn compress(plain: &[u8]) -> Result<Vec<u8>> {
    let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    gzip.write_all(plain)?;
    Ok(gzip.finish()?)
}

/// Bytes that are named by what they are.
struct Blob {
    bytes: Vec<u8>,
    digest: String,
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        let digest = format!("sha256:{}", hex(&Sha256::digest(&bytes)));
        Self { bytes, digest }
    }

    fn descriptor(&self, kind: &str) -> Value {
        json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": self.digest,
            "size": self.bytes.len(),
        })
    }

    /// Where it lies in the archive.
    fn place(&self) -> String {
        format!("blobs/{}", self.digest.replace(':', "/"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn layers() -> Vec<Layer> {
        let mut lower = Layer::new();
        lower.file("usr/lib/libc.so.6", "library", 0o755);
        lower.link("lib", "usr/lib");
        lower.directory("tmp", 0o1777);
        let mut upper = Layer::new();
        upper.file("/usr/bin/pitcrew", "program", 0o755);
        vec![lower, upper]
    }

    fn saved(compressed: bool, layers: Vec<Layer>) -> BTreeMap<String, Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("image.tar");
        let image = Image {
            name: "localhost/pitcrew:1",
            config: json!({"User": "65532"}),
            annotations: json!({}),
            layers,
            compressed,
        };
        let size = save(image, &out).unwrap();
        let bytes = std::fs::read(&out).unwrap();
        assert_eq!(size, bytes.len() as u64);
        files(&bytes)
    }

    fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(archive);
        let read = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
            let mut entry = entry.unwrap();
            assert_eq!(
                (entry.header().mtime().unwrap(), entry.header().uid().unwrap()),
                (0, 0)
            );
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.path().unwrap().display().to_string(), content)
        };
        archive.entries().unwrap().map(read).collect()
    }

    fn json(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn the_same_content_makes_the_same_archive_in_whatever_order_it_comes() {
        let mut other = layers();
        let mut lower = Layer::new();
        lower.directory("tmp", 0o1777);
        lower.link("lib", "usr/lib");
        lower.file("usr/lib/libc.so.6", "library", 0o755);
        other[0] = lower;
        assert_eq!(saved(true, layers()), saved(true, other));
    }

    #[test]
    fn every_digest_and_size_is_that_of_the_blob() {
        for compressed in [true, false] {
            let found = saved(compressed, layers());
            let blob = |descriptor: &Value| {
                let digest = descriptor["digest"].as_str().unwrap();
                let blob = &found[&format!("blobs/{}", digest.replace(':', "/"))];
                assert_eq!(digest, Blob::new(blob.clone()).digest);
                assert_eq!(descriptor["size"], blob.len());
                blob.clone()
            };
            let index = json(&found["index.json"]);
            let manifest = json(&blob(&index["manifests"][0]));
            let config = json(&blob(&manifest["config"]));
            let layers = manifest["layers"].as_array().unwrap();
            assert_eq!(layers.len(), 2);
            for (layer, diff_id) in layers
                .iter()
                .zip(config["rootfs"]["diff_ids"].as_array().unwrap())
            {
                let mut plain = Vec::new();
                let packed = blob(layer);
                if compressed {
                    flate2::read::GzDecoder::new(packed.as_slice())
                        .read_to_end(&mut plain)
                        .unwrap();
                } else {
                    plain = packed;
                }
                assert_eq!(*diff_id, Blob::new(plain).digest);
            }
            // What Docker reads says the same.
            let docker = json(&found["manifest.json"]);
            assert_eq!(docker[0]["RepoTags"], json!(["localhost/pitcrew:1"]));
            assert!(found.contains_key(docker[0]["Config"].as_str().unwrap()));
        }
    }

    #[test]
    fn directories_come_before_what_is_in_them() {
        let mut layer = Layer::new();
        layer.file("usr/bin/pitcrew", "", 0o755);
        layer.file("usr-x", "", 0o644);
        let packed = layer.pack().unwrap();
        let mut archive = tar::Archive::new(packed.as_slice());
        let names: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(names, ["usr/", "usr-x", "usr/bin/", "usr/bin/pitcrew"]);
    }
}
