//! The scenarios that come with the program.

macro_rules! scenarios {
    ($($name:literal),* $(,)?) => {
        /// Name and text of each, small nodes first.
        pub(crate) const SCENARIOS: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../scenarios/", $name, ".yaml")))),*];
    };
}

scenarios! {
    "rtx3060", "t4", "l40s", "a30", "h200", "rtxpro6000x2", "v100x4", "a100x8", "h100x8", "mixed", "broken",
}

/// The description, found without parsing the rest: listing scenarios must cost nothing. A test compares it with
/// what the parser reads.
pub(crate) fn description(text: &'static str) -> &'static str {
    text.lines()
        .find_map(|line| line.strip_prefix("description: "))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use crate::Scenario;

    #[test]
    fn every_built_in_parses_and_its_description_is_on_one_line() {
        for (name, description) in Scenario::builtin_names() {
            let scenario = Scenario::builtin(name).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(scenario.description(), description, "{name}");
            assert!(!description.is_empty());
        }
    }

    #[test]
    fn an_unknown_name_names_its_neighbours() {
        insta::assert_snapshot!(Scenario::builtin("h100").unwrap_err(), @"no scenario is called `h100`; did you mean `h100x8` or `h200`?");
        insta::assert_snapshot!(Scenario::builtin("banana").unwrap_err(), @"no scenario is called `banana`");
    }
}
