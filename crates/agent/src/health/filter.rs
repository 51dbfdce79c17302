//! Which XIDs count.

use std::collections::BTreeSet;

use pitcrew_core::xid::{self, Severity};

/// Which XIDs make a GPU sick, by the two variables of NVIDIA's device plugin.
///
/// Without them: all but those that are an application's own fault by our table, and those that the plugin ignores.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct XidFilter {
    disabled: Numbers,
    enabled: Numbers,
    /// What was in the variables and means nothing.
    unknown: Vec<String>,
}

/// Some numbers, or all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Numbers {
    all: bool,
    some: BTreeSet<u32>,
}

impl Numbers {
    fn contains(&self, number: u32) -> bool {
        self.all || self.some.contains(&number)
    }

    fn parse(text: &str, unknown: &mut Vec<String>) -> Self {
        let mut numbers = Self::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            if word.eq_ignore_ascii_case("all") || word.eq_ignore_ascii_case("xids") {
                numbers.all = true;
            } else if let Ok(number) = word.parse() {
                numbers.some.insert(number);
            } else {
                unknown.push(word.to_owned());
            }
        }
        numbers
    }
}

impl XidFilter {
    /// From `DP_DISABLE_HEALTHCHECKS` and `DP_ENABLE_HEALTHCHECKS`: `all`, `xids`, or numbers with commas between them.
    /// What is enabled wins.
    pub fn parse(disabled: &str, enabled: &str) -> Self {
        let mut unknown = Vec::new();
        Self {
            disabled: Numbers::parse(disabled, &mut unknown),
            enabled: Numbers::parse(enabled, &mut unknown),
            unknown,
        }
    }

    /// Words in the variables that are neither numbers nor `all` nor `xids`. They are ignored.
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }

    /// True where no XID counts.
    pub fn is_off(&self) -> bool {
        self.disabled.all && !self.enabled.all && self.enabled.some.is_empty()
    }

    /// True for an XID that says nothing about the health of a GPU.
    pub fn ignores(&self, number: u32) -> bool {
        if self.enabled.contains(number) {
            return false;
        }
        if self.disabled.contains(number) {
            return true;
        }
        xid::lookup(number)
            .is_some_and(|xid| xid.ignored_by_reference() || xid.severity == Severity::Application)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xids_that_nvidias_plugin_ignores_are_ignored_and_so_is_what_an_application_did() {
        let filter = XidFilter::default();
        for number in [13, 31, 43, 45, 68, 109, 69] {
            assert!(filter.ignores(number), "{number}");
        }
        for number in [48, 63, 79, 94, 119, 9999] {
            assert!(!filter.ignores(number), "{number}");
        }
    }

    #[test]
    fn the_variables_of_nvidias_plugin_are_honoured_and_what_is_enabled_wins() {
        let filter = XidFilter::parse("48, 79", "");
        assert!(filter.ignores(48) && filter.ignores(79) && !filter.ignores(94));
        for word in ["all", "xids", "ALL"] {
            let filter = XidFilter::parse(word, "");
            assert!(filter.ignores(79) && filter.is_off(), "{word}");
        }
        let filter = XidFilter::parse("all", "79,13");
        assert!(!filter.ignores(79) && !filter.ignores(13) && filter.ignores(48) && !filter.is_off());
        assert!(!XidFilter::parse("", "all").ignores(13));
        let filter = XidFilter::parse("48,,x, 4294967296", "");
        assert_eq!(filter.unknown(), ["x", "4294967296"]);
        assert!(filter.ignores(48));
    }
}
