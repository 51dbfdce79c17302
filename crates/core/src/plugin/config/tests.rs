//! What a configuration says, and what it is refused for.

use super::*;

#[test]
fn an_empty_text_is_the_defaults() {
    for text in [
        "",
        "# nothing\n",
        "{}",
        "version: v1",
        "version: ''",
        "null",
        "flags:\nsharing:\n",
    ] {
        assert_eq!(Config::parse(text), Ok(Config::default()), "{text}");
    }
}
