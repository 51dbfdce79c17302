//! The pack: all PTX and cubins, deflated one by one, as `kernels/build.py` wrote them.

use std::io::Read as _;

use flate2::read::ZlibDecoder;

use sha2::{Digest as _, Sha256};

static PACK: &[u8] = include_bytes!("../../kernels/pack.bin");
/// The hashes of sources, PTX, cubins and pack, and what they were made with.
static MANIFEST: &[u8] = include_bytes!("../../kernels/manifest.json");

/// The binary holds no such kernel, or not as it was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// No such file.
    #[error("there is no `{0}` in this binary")]
    Missing(String),
    /// Not what was packed.
    #[error("the kernels in this binary are damaged: get it again")]
    Damaged,
}

struct Entry {
    name: &'static str,
    data: &'static [u8],
    bytes: usize,
}

/// SHA-256 of the manifest of the kernels in this binary, in hex: two runs with the same one ran the same code.
pub fn digest() -> String {
    sha256(MANIFEST)
}

fn sha256(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    let mut hex = String::new();
    for byte in digest {
        for half in [byte >> 4, byte & 15] {
            hex.extend(char::from_digit(half.into(), 16));
        }
    }
    hex
}

/// The names of all files, in order.
pub fn names() -> Result<Vec<&'static str>, PackError> {
    Ok(entries()?.into_iter().map(|entry| entry.name).collect())
}

/// A file's content.
pub fn unpack(name: &str) -> Result<Vec<u8>, PackError> {
    let entry = entries()?
        .into_iter()
        .find(|entry| entry.name == name)
        .ok_or_else(|| PackError::Missing(name.to_owned()))?;
    let mut content = Vec::with_capacity(entry.bytes);
    ZlibDecoder::new(entry.data)
        .read_to_end(&mut content)
        .map_err(|_| PackError::Damaged)?;
    if content.len() == entry.bytes {
        Ok(content)
    } else {
        Err(PackError::Damaged)
    }
}

fn entries() -> Result<Vec<Entry>, PackError> {
    read_index(PACK).ok_or(PackError::Damaged)
}

fn read_index(pack: &'static [u8]) -> Option<Vec<Entry>> {
    let (count, mut rest) = pack.split_first_chunk::<4>()?;
    let mut heads = Vec::new();
    for _ in 0..u32::from_le_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (name, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        let (packed, after) = after.split_first_chunk::<4>()?;
        let (bytes, after) = after.split_first_chunk::<4>()?;
        heads.push((
            std::str::from_utf8(name).ok()?,
            usize::try_from(u32::from_le_bytes(*packed)).ok()?,
            usize::try_from(u32::from_le_bytes(*bytes)).ok()?,
        ));
        rest = after;
    }
    let mut entries = Vec::with_capacity(heads.len());
    for (name, packed, bytes) in heads {
        let (data, after) = rest.split_at_checked(packed)?;
        entries.push(Entry { name, data, bytes });
        rest = after;
    }
    rest.is_empty().then_some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kernels_add_less_than_two_megabytes() {
        assert!(PACK.len() <= 2_000_000, "{} bytes", PACK.len());
    }

    #[test]
    fn the_digest_is_of_the_manifest_and_the_manifest_of_the_pack() {
        let digest = digest();
        assert!(
            digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{digest}"
        );
        let of_pack = sha256(PACK);
        assert!(std::str::from_utf8(MANIFEST).unwrap().contains(&of_pack));
    }

    #[test]
    fn a_pack_that_was_cut_or_has_more_is_damaged() {
        assert!(read_index(PACK).is_some());
        assert!(read_index(&PACK[..PACK.len() - 1]).is_none());
        for length in 0..200 {
            assert!(read_index(&PACK[..length]).is_none(), "{length}");
        }
        assert_eq!(
            unpack("ptx/none.ptx"),
            Err(PackError::Missing("ptx/none.ptx".to_owned()))
        );
    }
}
