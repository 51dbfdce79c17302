//! UUIDs and serial numbers that follow from names alone, so that a run can be repeated and two nodes differ.

/// FNV-1a, 64 bits: short, and the same on every machine and release.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// One step of splitmix64: spreads FNV's weak high bits.
fn splitmix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A UUID (version 4 in form) that follows from `what`, e.g. `h100x8/gpu/3`.
pub(crate) fn uuid(prefix: &str, what: &str) -> String {
    let high = splitmix(fnv1a(what));
    let low = splitmix(high ^ fnv1a(prefix));
    format!(
        "{prefix}-{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        0x8000 | ((low >> 48) & 0x3fff),
        low & 0xffff_ffff_ffff
    )
}

/// A serial number of 13 digits, as boards have, that follows from `what`.
pub(crate) fn serial(what: &str) -> String {
    format!("165{:010}", splitmix(fnv1a(what)) % 10_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_gives_the_same_identity_and_another_one_another() {
        insta::assert_snapshot!(uuid("GPU", "h100x8/gpu/0"), @"GPU-53e078c4-1f64-4ed9-9fc9-d71bf796066b");
        assert_eq!(uuid("GPU", "a"), uuid("GPU", "a"));
        assert_ne!(uuid("GPU", "a"), uuid("GPU", "b"));
        assert_eq!(serial("a").len(), 13);
    }
}
