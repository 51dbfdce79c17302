//! Every environment variable that pitcrew reads, in one place.

/// Imaginary GPUs to show instead of this machine's; the same as `--scenario`.
pub const SCENARIO: &str = "PITCREW_SCENARIO";
/// Format of what is printed; the same as `--output`.
pub const OUTPUT: &str = "PITCREW_OUTPUT";
/// When to use colour; the same as `--color`.
pub const COLOR: &str = "PITCREW_COLOR";
/// Another root directory; the same as `--root`.
pub const ROOT: &str = "PITCREW_ROOT";
/// The driver's management library; the same as `--nvml`.
pub const NVML: &str = "PITCREW_NVML";
/// Width of tables in columns; the same as `--width`.
pub const COLUMNS: &str = "COLUMNS";
/// No colour, unless `--color` asks for it. Read by `anstream`.
pub const NO_COLOR: &str = "NO_COLOR";
/// Colour also where output is no terminal. Read by `anstream`.
pub const CLICOLOR_FORCE: &str = "CLICOLOR_FORCE";

/// All of them, with what they do in Markdown: the text of `docs/reference/environment.md`.
pub const ALL: &[(&str, &str)] = &[
    (
        SCENARIO,
        "Imaginary GPUs to show instead of this machine's, a name or a file. The same as `--scenario`.",
    ),
    (
        OUTPUT,
        "Format of what is printed: `table`, `json` or `yaml`. The same as `--output`.",
    ),
    (
        COLOR,
        "When to use colour: `auto`, `always` or `never`. The same as `--color`.",
    ),
    (
        ROOT,
        "The directory to read the machine's files under. The same as `--root`.",
    ),
    (
        NVML,
        "The driver's management library (`libnvidia-ml.so.1`) to load. The same as `--nvml`.",
    ),
    (
        COLUMNS,
        "Width of tables. The same as `--width`; without it the width of the terminal counts.",
    ),
    (
        NO_COLOR,
        "If set and not empty: no colour, unless `--color always` asks for it. See <https://no-color.org>.",
    ),
    (
        CLICOLOR_FORCE,
        "If set and not empty: colour also where output is no terminal.",
    ),
];
