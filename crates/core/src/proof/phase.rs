//! One phase on one GPU: what ran, how fast, how much of it was verified, and what was wrong.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One phase on one GPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// What it does.
    pub kind: PhaseKind,
    /// Number format, for the phases that compute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The kernels that ran, e.g. `wgmma`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// True where these kernels had run on no GPU when this program was made: that they are right is known from this run
    /// alone.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_untested: bool,
    /// Where the driver had their machine code from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// Better variants that could not be used, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Refused>,
    /// Edge of the matrices, for a GEMM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<u64>,
    /// When it began, in seconds after [`Run::started`](super::Run::started).
    #[serde(default)]
    pub start_s: f64,
    /// How long it took, in seconds.
    #[serde(default)]
    pub seconds: f64,
    /// When it worked, as pairs of seconds after the run began, for a phase that comes several times; empty where it is
    /// all of the time from `start_s` on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spans: Vec<(f64, f64)>,
    /// How fast it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Mean clock of the SMs while work ran, in MHz, by the SMs' own counters (or NVML's samples where those aren't read).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sm_clock_mhz: Option<f64>,
    /// Mean power while work ran, in watts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_w: Option<f64>,
    /// Results of arithmetic that were compared with what they must be.
    #[serde(default)]
    pub verified_outputs: u64,
    /// Bytes of memory or of transfers that were compared.
    #[serde(default)]
    pub verified_bytes: u64,
    /// How much of the memory was covered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coverage: Option<Coverage>,
    /// Results and words that were wrong, all of them.
    #[serde(default)]
    pub corruption_count: u64,
    /// The first thousand of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub corruptions: Vec<Corruption>,
    /// The SMs, each by itself, by number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sms: Vec<SmResult>,
}

impl Phase {
    /// A phase that has not begun: no work, nothing verified.
    pub fn new(kind: PhaseKind, format: Option<Format>, outcome: Outcome) -> Self {
        Self {
            kind,
            format,
            outcome,
            variant: None,
            is_untested: false,
            code: None,
            refused: Vec::new(),
            n: None,
            start_s: 0.0,
            seconds: 0.0,
            spans: Vec::new(),
            rate: None,
            sm_clock_mhz: None,
            power_w: None,
            verified_outputs: 0,
            verified_bytes: 0,
            coverage: None,
            corruption_count: 0,
            corruptions: Vec::new(),
            sms: Vec::new(),
        }
    }

    /// The kernels that ran, as a person is told of them, and what is not usual about them: `wgmma`, `wgmma (ptx)`.
    pub fn kernels(&self) -> Option<String> {
        let variant = self.variant.as_ref()?;
        let untested = self.is_untested.then_some("untested");
        let compiled = (self.code == Some(Code::Ptx)).then_some(Code::Ptx.name());
        let remarks: Vec<&str> = untested.into_iter().chain(compiled).collect();
        Some(if remarks.is_empty() {
            variant.clone()
        } else {
            format!("{variant} ({})", remarks.join(", "))
        })
    }

    /// When it worked, as pairs of seconds after the run began.
    pub fn worked(&self) -> impl Iterator<Item = (f64, f64)> {
        let whole = self
            .spans
            .is_empty()
            .then_some((self.start_s, self.start_s + self.seconds));
        self.spans.iter().copied().chain(whole)
    }

    /// True where it worked at this time.
    pub fn worked_at(&self, at_s: f64) -> bool {
        self.worked().any(|(from, to)| from <= at_s && at_s <= to)
    }

    /// Its name with the format, e.g. `gemm bf16`; unique on one GPU.
    pub fn title(&self) -> String {
        match self.format {
            Some(format) => format!("{} {format}", self.kind),
            None => self.kind.to_string(),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// What a phase does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PhaseKind {
    /// One tile of each variant against the CPU's own answer, before anything is measured.
    SelfTest,
    /// Patterns over the memory, up and down.
    March,
    /// Patterns left alone for a while.
    BitFade,
    /// Memory: one stream read, one written.
    Copy,
    /// Memory: two streams read, one written.
    Triad,
    /// Level-2 cache, read again and again.
    Cache,
    /// From pinned host memory to the GPU.
    HostToDevice,
    /// From the GPU to pinned host memory.
    DeviceToHost,
    /// Both ways at once; the rate is the sum.
    HostBothWays,
    /// The same multiplication on every SM, from shared memory.
    MmaLoop,
    /// Large matrix products.
    Gemm,
    /// Products and memory traffic at once: the most power.
    Power,
    /// From full load to none and back.
    Pulse,
}

impl PhaseKind {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SelfTest => "self-test",
            Self::March => "march",
            Self::BitFade => "bit-fade",
            Self::Copy => "copy",
            Self::Triad => "triad",
            Self::Cache => "cache",
            Self::HostToDevice => "host-to-device",
            Self::DeviceToHost => "device-to-host",
            Self::HostBothWays => "host-both-ways",
            Self::MmaLoop => "mma-loop",
            Self::Gemm => "gemm",
            Self::Power => "power",
            Self::Pulse => "pulse",
        }
    }
}

impl fmt::Display for PhaseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Number formats of operands. Sums are kept in FP32, in S32 for INT8, in FP64 for FP64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    Fp16,
    /// TensorFloat-32.
    Tf32,
    /// IEEE single precision, without tensor cores.
    Fp32,
    /// IEEE double precision.
    Fp64,
    /// 8-bit integers.
    Int8,
    /// 8-bit floating point, E4M3.
    Fp8,
}

impl Format {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Bf16,
        Self::Fp16,
        Self::Tf32,
        Self::Fp32,
        Self::Fp64,
        Self::Int8,
        Self::Fp8,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::Fp16 => "fp16",
            Self::Tf32 => "tf32",
            Self::Fp32 => "fp32",
            Self::Fp64 => "fp64",
            Self::Int8 => "int8",
            Self::Fp8 => "fp8",
        }
    }

    /// Bytes of one operand in memory.
    pub const fn operand_bytes(self) -> u64 {
        match self {
            Self::Fp8 | Self::Int8 => 1,
            Self::Bf16 | Self::Fp16 => 2,
            Self::Tf32 | Self::Fp32 => 4,
            Self::Fp64 => 8,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Text that names no [`Format`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no number format: bf16, fp16, tf32, fp32, fp64, int8 or fp8")]
pub struct ParseFormatError(String);

impl FromStr for Format {
    type Err = ParseFormatError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.iter().find(|format| format.name() == text);
        found.copied().ok_or_else(|| ParseFormatError(text.to_owned()))
    }
}

/// What became of a phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    /// It ran to its end. Whether its results are right is another question.
    Ran,
    /// It did not run.
    Skipped {
        /// Whether that is how it should be.
        skip: Skip,
        /// Why, in a few words.
        why: String,
    },
    /// It began and could not end: an error of ours, of the driver or of the GPU.
    Failed {
        /// What happened.
        why: String,
    },
    /// It was cut short by whoever runs the proof. What it has measured counts.
    Interrupted,
}

impl Outcome {
    /// True where there is something to look at.
    pub fn has_results(&self) -> bool {
        matches!(self, Self::Ran | Self::Interrupted)
    }

    /// Why there is nothing, or not all.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Ran => None,
            Self::Skipped { why, .. } | Self::Failed { why } => Some(why),
            Self::Interrupted => Some("interrupted"),
        }
    }
}

/// Kinds of a phase that did not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Skip {
    /// This hardware can't (FP8 on a T4, peers of a single GPU): nothing is missing.
    Unsupported,
    /// It was not asked for: by the profile, or by a flag. Nothing is missing.
    NotAsked,
    /// It should have run and could not (too little memory, no time left): this GPU is less tested than it should be.
    NotTested,
}

/// Where a kernel's machine code came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// It was compiled beforehand.
    Cubin,
    /// The driver compiled it, from PTX.
    Ptx,
}

impl Code {
    /// Its name, as reports have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cubin => "cubin",
            Self::Ptx => "ptx",
        }
    }
}

/// A variant of a kernel that could not be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Its name.
    pub variant: String,
    /// Why: the driver's words, or a self-test that was wrong.
    pub why: String,
}

/// What a [`Rate`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// 10^12 operations a second: two for each multiplication with its addition.
    #[serde(rename = "TFLOP/s")]
    Tflops,
    /// 10^9 bytes a second.
    #[serde(rename = "GB/s")]
    Gbs,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tflops => "TFLOP/s",
            Self::Gbs => "GB/s",
        })
    }
}

/// How fast, over the whole of a phase without its warm-up. Work is counted when it is done, not when it is given.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// What is counted.
    pub unit: Unit,
    /// Exceeded by all but the slowest twentieth of the measurements.
    pub p5: f64,
    /// Median: the figure that is judged.
    pub p50: f64,
    /// Exceeded by the fastest twentieth.
    pub p95: f64,
    /// How many measurements.
    pub count: u64,
}

impl Rate {
    /// From single measurements; none where there are none, or one is no number.
    pub fn of(unit: Unit, mut measured: Vec<f64>) -> Option<Self> {
        if measured.is_empty() || measured.iter().any(|rate| !rate.is_finite()) {
            return None;
        }
        measured.sort_by(f64::total_cmp);
        let at = |percent: usize| measured[(measured.len() - 1) * percent / 100];
        Some(Self {
            unit,
            p5: at(5),
            p50: at(50),
            p95: at(95),
            count: measured.len() as u64,
        })
    }
}

/// How much of the memory was covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// Bytes that were written and read.
    pub tested_bytes: u64,
    /// Bytes that were free before.
    pub free_bytes: u64,
    /// Times that all of them were written and read.
    pub passes: u64,
}

/// What one SM did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SmResult {
    /// Its number (`%smid`).
    pub sm: u32,
    /// Tiles that it computed.
    pub tiles: u64,
    /// Of those, wrong ones.
    #[serde(default)]
    pub wrong: u64,
    /// Its clock, in MHz.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_mhz: Option<f64>,
    /// Its speed as a part of the median of all SMs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relative_speed: Option<f64>,
}

/// 64 bits. In text they are hex with `0x`, as JSON's numbers don't hold them everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bits(pub u64);

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl Serialize for Bits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Bits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bits = text
            .strip_prefix("0x")
            .and_then(|hex| u64::from_str_radix(hex, 16).ok());
        bits.map(Self)
            .ok_or_else(|| serde::de::Error::custom(format_args!("`{text}` is no number such as `0x1f`")))
    }
}

/// Something that came out wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Corruption {
    /// What kind of fault it was.
    pub class: CorruptionClass,
    /// When it was seen, in seconds after the run began.
    pub at_s: f64,
    /// SM that computed or read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sm: Option<u32>,
    /// Warp on that SM; warps of one number modulo four share a sub-core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warp: Option<u32>,
    /// Tile of the product.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tile: Option<u32>,
    /// Row of the product.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row: Option<u64>,
    /// Column of the product.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u64>,
    /// Offset in the memory that was tested, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// What it must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<Bits>,
    /// What it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub got: Option<Bits>,
    /// What it was when it was read again, past the caches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second_read: Option<Bits>,
    /// Round of the work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iteration: Option<u64>,
    /// Temperature of the GPU then, in degrees Celsius.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_c: Option<f64>,
}

impl Corruption {
    /// One of which only the kind is known.
    pub fn new(class: CorruptionClass, at_s: f64) -> Self {
        Self {
            class,
            at_s,
            sm: None,
            warp: None,
            tile: None,
            row: None,
            column: None,
            offset: None,
            expected: None,
            got: None,
            second_read: None,
            iteration: None,
            temperature_c: None,
        }
    }

    /// The bits that differ.
    pub fn difference(&self) -> Option<Bits> {
        Some(Bits(self.expected?.0 ^ self.got?.0))
    }
}

/// Kinds of faults, told apart by reading and computing again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CorruptionClass {
    /// An SM computed wrong once; the same SM was right when it was asked again.
    ComputeTransient,
    /// An SM computes wrong again and again.
    ComputePermanent,
    /// An operand was wrong in memory.
    OperandMemory,
    /// The product was right in the registers and wrong in memory.
    OutputMemory,
    /// Memory was read wrong once; a second read was right.
    ReadTransient,
    /// Memory holds something else than was written.
    Stored,
    /// Data arrived otherwise than it was sent, over PCIe or NVLink.
    Transfer,
    /// It can't be told.
    Unknown,
}

impl CorruptionClass {
    /// What it is, in a few words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::ComputeTransient => "computed wrong once",
            Self::ComputePermanent => "computes wrong again and again",
            Self::OperandMemory => "operand wrong in memory",
            Self::OutputMemory => "result wrong in memory",
            Self::ReadTransient => "read wrong once",
            Self::Stored => "memory holds something else",
            Self::Transfer => "arrived wrong",
            Self::Unknown => "wrong, cause not known",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_the_document() {
        let format: Format = serde_json::from_str("\"bf16\"").unwrap();
        assert_eq!(format, Format::Bf16);
        for format in Format::ALL {
            assert_eq!(serde_json::to_string(format).unwrap(), format!("\"{format}\""));
            assert_eq!(format.name().parse(), Ok(*format));
        }
        for kind in [PhaseKind::SelfTest, PhaseKind::HostBothWays, PhaseKind::MmaLoop] {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
        }
    }

    #[test]
    fn a_rate_is_of_numbers_alone() {
        let rate = Rate::of(Unit::Gbs, (0..=100).rev().map(f64::from).collect()).unwrap();
        assert_eq!((rate.p5, rate.p50, rate.p95, rate.count), (5.0, 50.0, 95.0, 101));
        assert_eq!(Rate::of(Unit::Gbs, Vec::new()), None);
        assert_eq!(Rate::of(Unit::Gbs, vec![1.0, f64::NAN]), None);
    }

    #[test]
    fn bits_keep_all_of_their_sixty_four() {
        let bits = Bits(u64::MAX - 1);
        let text = serde_json::to_string(&bits).unwrap();
        assert_eq!(text, "\"0xfffffffffffffffe\"");
        assert_eq!(serde_json::from_str::<Bits>(&text).unwrap(), bits);
        assert!(serde_json::from_str::<Bits>("\"12\"").is_err());
    }

    #[test]
    fn a_skipped_phase_is_written_with_its_reason() {
        let outcome = Outcome::Skipped {
            skip: Skip::Unsupported,
            why: "no fp8 before compute capability 8.9".to_owned(),
        };
        let phase = Phase::new(PhaseKind::Gemm, Some(Format::Fp8), outcome);
        let text = serde_json::to_string(&phase).unwrap();
        assert!(
            text.contains(r#""outcome":"skipped","skip":"unsupported""#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Phase>(&text).unwrap(), phase);
    }
}
