//! Names: what may be one, and made-up ones (`generateName`, uids).

use std::fmt::Write as _;

/// Whether this may name most objects: labels of lower-case letters, digits and `-`, with dots between, at most 253.
pub(crate) fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|label| {
            let bytes = label.as_bytes();
            let is_end = |byte: Option<&u8>| {
                byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
            };
            is_end(bytes.first())
                && is_end(bytes.last())
                && bytes
                    .iter()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
        })
}

/// Whether this may be a part of a path: what RBAC objects ask of a name, which may hold colons.
pub(crate) fn is_path_segment(text: &str) -> bool {
    !matches!(text, "" | "." | "..") && !text.contains(['/', '%'])
}

/// Names and uids that no two objects of one server share; the same seed gives the same ones.
#[derive(Debug)]
pub(crate) struct Generator {
    state: u64,
}

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// splitmix64, by Sebastiano Vigna: every state gives another number.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A random uid in the form of a version 4 UUID.
    pub(crate) fn uid(&mut self) -> String {
        let (high, low) = (self.next(), self.next());
        let high = (high & !0xf000) | 0x4000;
        let low = (low & !(0b11 << 62)) | (0b10 << 62);
        let mut out = String::with_capacity(36);
        let _ = write!(
            out,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xffff,
            low >> 48,
            low & 0xffff_ffff_ffff
        );
        out
    }

    /// What `generateName` makes of a prefix: five more characters, none of which make words.
    pub(crate) fn name(&mut self, prefix: &str) -> String {
        const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
        const TAIL: usize = 5;
        // A name that is made up is at most 63 long, so that it can be a label too.
        let end = prefix
            .char_indices()
            .map(|(index, c)| index + c.len_utf8())
            .take_while(|end| *end <= 63 - TAIL)
            .last();
        let mut out = prefix.get(..end.unwrap_or(0)).unwrap_or_default().to_owned();
        let mut random = self.next();
        for _ in 0..TAIL {
            let index = usize::try_from(random % 27).unwrap_or_default();
            out.push(LETTERS.get(index).copied().map_or('x', char::from));
            random /= 27;
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_kubernetes_takes() {
        for good in ["a", "a-b.c", "0.x", "kube-root-ca.crt"] {
            assert!(is_dns_subdomain(good), "{good}");
        }
        for bad in ["", "A", "-a", "a-", "a..b", ".", "a_b", &"a".repeat(254)] {
            assert!(!is_dns_subdomain(bad), "{bad}");
        }
    }

    #[test]
    fn generated_names_and_uids_have_their_form_and_differ() {
        let mut generator = Generator::new(7);
        let uid = generator.uid();
        assert_eq!(uid.len(), 36);
        assert_eq!(uid.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&uid.as_bytes()[19]), "{uid}");
        assert_ne!(uid, generator.uid());
        assert_eq!(generator.name("gpu-").len(), 9);
        assert_eq!(generator.name(&"é".repeat(40)).chars().count(), 29 + 5);
        assert_eq!(Generator::new(7).uid(), uid);
    }
}
