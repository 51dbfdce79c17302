//! The loader's cache, `/etc/ld.so.cache`: which file a library's name stands for.
//!
//! The format is that of glibc since 2.2, `glibc-ld.so.cache1.1`, alone or behind the table of older ones
//! (`ld.so-1.7.0`). Numbers are in the byte order of the machine that wrote it; only little endian is read, which is
//! what every machine with an NVIDIA GPU has.

/// Where the older table begins.
const OLD_MAGIC: &[u8] = b"ld.so-1.7.0\0";
const OLD_ENTRY: usize = 12;
const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
/// Magic, number of entries, length of the strings, flags, offset of extensions, and three words that are not used.
const HEADER: usize = 48;
/// Flags, name, path, OS version, and hardware capabilities.
const ENTRY: usize = 24;

/// Low byte of the flags of an ELF library for glibc.
const ELF_LIBC6: u32 = 3;
/// The byte above it, of those machines that NVIDIA's driver runs on: x86-64 and aarch64.
const MACHINES: [u32; 2] = [0x03, 0x0a];

/// The text is no cache.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`ld.so.cache` {0}")]
pub struct LdCacheError(&'static str);

/// Names and paths of the 64-bit libraries in a cache, in its order: where a name is there twice, the first counts.
///
/// # Errors
/// Where it isn't a cache, or is cut off.
pub fn parse(bytes: &[u8]) -> Result<Vec<(String, String)>, LdCacheError> {
    let table = new_table(bytes)?;
    let count = word(table, 20).ok_or(LdCacheError("is cut off"))?;
    let mut found = Vec::new();
    for index in 0..count as usize {
        let at = HEADER + index * ENTRY;
        let entry = table.get(at..at + ENTRY).ok_or(LdCacheError("is cut off"))?;
        let field = |at: usize| word(entry, at).unwrap_or_default();
        let (flags, name, path) = (field(0), field(4), field(8));
        if flags & 0xff != ELF_LIBC6 || !MACHINES.contains(&(flags >> 8 & 0xff)) {
            continue;
        }
        if let (Some(name), Some(path)) = (string(table, name), string(table, path)) {
            found.push((name, path));
        }
    }
    Ok(found)
}

/// The table with the present format, from its first byte on: its offsets count from there.
fn new_table(bytes: &[u8]) -> Result<&[u8], LdCacheError> {
    if bytes.starts_with(MAGIC) {
        return Ok(bytes);
    }
    let old = bytes
        .strip_prefix(OLD_MAGIC)
        .ok_or(LdCacheError("has an unknown format"))?;
    let count = word(old, 0).ok_or(LdCacheError("is cut off"))? as usize;
    let end = count
        .checked_mul(OLD_ENTRY)
        .and_then(|length| length.checked_add(OLD_MAGIC.len() + 4 + 7))
        .ok_or(LdCacheError("is cut off"))?;
    let table = bytes.get(end / 8 * 8..).unwrap_or_default();
    if table.starts_with(MAGIC) {
        Ok(table)
    } else {
        Err(LdCacheError("has only the format of glibc before 2.2"))
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn string(table: &[u8], at: u32) -> Option<String> {
    let rest = table.get(at as usize..)?;
    let end = rest.iter().take(4096).position(|&byte| byte == 0)?;
    Some(String::from_utf8_lossy(&rest[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A cache with these entries: flags, name, path.
    fn cache(entries: &[(u32, &str, &str)]) -> Vec<u8> {
        let mut strings = Vec::new();
        let mut table = Vec::new();
        let base = HEADER + entries.len() * ENTRY;
        let mut put = |text: &str| {
            let at = u32::try_from(base + strings.len()).unwrap();
            strings.extend_from_slice(text.as_bytes());
            strings.push(0);
            at
        };
        for (flags, name, path) in entries {
            for number in [*flags, put(name), put(path), 0, 0, 0] {
                table.extend_from_slice(&number.to_le_bytes());
            }
        }
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&u32::try_from(entries.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(strings.len()).unwrap().to_le_bytes());
        bytes.resize(HEADER, 0);
        bytes.extend(table);
        bytes.extend(strings);
        bytes
    }

    const CUDA: (u32, &str, &str) = (0x0303, "libcuda.so.1", "/lib/x86_64-linux-gnu/libcuda.so.1");

    #[test]
    fn names_and_paths_are_read_and_32_bit_libraries_are_not() {
        let bytes = cache(&[CUDA, (0x0003, "libcuda.so.1", "/lib/i386-linux-gnu/libcuda.so.1")]);
        assert_eq!(parse(&bytes).unwrap(), [(CUDA.1.to_owned(), CUDA.2.to_owned())]);
    }

    #[test]
    fn a_table_behind_an_older_one_is_found() {
        let mut bytes = OLD_MAGIC.to_vec();
        bytes.extend_from_slice(&1_u32.to_le_bytes());
        bytes.extend([0; OLD_ENTRY]);
        bytes.resize(bytes.len().div_ceil(8) * 8, 0);
        bytes.extend(cache(&[CUDA]));
        assert_eq!(parse(&bytes).unwrap().len(), 1);
    }

    #[test]
    fn what_is_no_cache_is_refused() {
        for bytes in [&b""[..], b"ELF", OLD_MAGIC, MAGIC] {
            assert!(parse(bytes).is_err());
        }
        let cut = cache(&[CUDA]);
        assert!(parse(&cut[..HEADER + 10]).is_err());
    }

    #[test]
    fn the_cache_of_this_machine_is_read_where_it_has_one() {
        if let Ok(bytes) = std::fs::read("/etc/ld.so.cache") {
            let found = parse(&bytes).unwrap();
            assert!(
                found.iter().any(|(name, _)| name.starts_with("libc.so")),
                "{found:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_cache_or_a_refusal(bytes in proptest::collection::vec(any::<u8>(), 0..200), magic in any::<bool>()) {
            let bytes = if magic { [MAGIC, &bytes].concat() } else { bytes };
            let _ = parse(&bytes);
        }
    }
}
