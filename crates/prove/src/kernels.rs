//! The GPU code that comes with the binary, and which of it can run where. Pure.
//!
//! `kernels/build.py` makes it of the sources in `kernels/`: of each module PTX of the lowest version that has its
//! instructions, and machine code (cubins) for the architectures of [`Module::cubins`]. A cubin needs no compiler in the
//! driver and PTX needs no cubin for the architecture, so that one of them is taken by any driver that knows the GPU.

mod pack;
mod shape;
#[cfg(test)]
mod tensor_memory;

use pitcrew_core::catalog::ComputeCapability;
use pitcrew_core::inventory::CudaVersion;

use crate::device::{CodeSource, Format, Variant};

pub use pack::{PackError, digest, names, unpack};
pub use shape::{Shape, shape, tcgen05_bytes, wgmma_bytes};

/// The GPUs that a module's PTX runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// `sm_XY`: that compute capability and all later ones.
    From(u32, u32),
    /// `sm_XYa`: that one alone.
    Exactly(u32, u32),
    /// `sm_XYf`: that one and the later ones of its family.
    Family(u32, u32),
}

impl Target {
    /// Does code for it run on a GPU?
    pub fn includes(self, capability: ComputeCapability) -> bool {
        let has = (capability.major, capability.minor);
        match self {
            Self::From(major, minor) => has >= (major, minor),
            Self::Exactly(major, minor) => has == (major, minor),
            // What was 10.1 and is 11.0 since CUDA 13 is of another family: `ptxas` refuses `sm_100f` for `sm_110a`.
            Self::Family(major, minor) => has.0 == major && has.1 >= minor && has != (10, 1),
        }
    }
}

/// One source of kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Module {
    /// Its name: `ptx/NAME.ptx` in the pack.
    pub name: &'static str,
    /// What its PTX is for.
    pub target: Target,
    /// The PTX version it is written in.
    pub ptx: (u32, u32),
    /// CUDA release whose driver knows that version.
    pub cuda: CudaVersion,
    /// Architectures of its cubins, `cubin/NAME.sm_XY.cubin` in the pack, oldest first.
    pub cubins: &'static [Cubin],
}

/// Machine code for one architecture: it runs there and on later minor versions of the same major one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cubin {
    /// Major compute capability.
    pub major: u32,
    /// Minor compute capability.
    pub minor: u32,
    /// Only on exactly that one: `sm_90a`.
    pub exact: bool,
}

const fn cubin(major: u32, minor: u32) -> Cubin {
    Cubin {
        major,
        minor,
        exact: false,
    }
}

const fn cuda(major: u32, minor: u32) -> CudaVersion {
    CudaVersion { major, minor }
}

/// Memory, operands and the second opinion on a tile: no matrix instructions.
pub const MEMORY: Module = Module {
    name: "memory",
    target: Target::From(5, 0),
    ptx: (5, 0),
    cuda: cuda(8, 0),
    cubins: &[
        cubin(5, 0),
        cubin(6, 0),
        cubin(7, 0),
        cubin(8, 0),
        cubin(9, 0),
        cubin(10, 0),
        cubin(12, 0),
    ],
};

const SIMT: Module = Module {
    name: "simt",
    ..MEMORY
};

/// Only what has no tensor cores needs its machine code.
const SIMT_HALF: Module = Module {
    name: "simt_half",
    cubins: &[cubin(5, 0), cubin(6, 0)],
    ..MEMORY
};

const DP4A: Module = Module {
    name: "dp4a",
    target: Target::From(6, 1),
    ptx: (5, 0),
    cuda: cuda(8, 0),
    cubins: &[
        cubin(6, 1),
        cubin(7, 0),
        cubin(8, 0),
        cubin(9, 0),
        cubin(10, 0),
        cubin(12, 0),
    ],
};

const M8N8K4: Module = Module {
    name: "m8n8k4",
    target: Target::From(7, 0),
    ptx: (6, 4),
    cuda: cuda(10, 1),
    cubins: &[cubin(7, 0)],
};

const M16N8K8: Module = Module {
    name: "m16n8k8",
    target: Target::From(7, 5),
    ptx: (6, 5),
    cuda: cuda(10, 2),
    cubins: &[cubin(7, 5)],
};

const M16N8K16: Module = Module {
    name: "m16n8k16",
    target: Target::From(8, 0),
    ptx: (7, 0),
    cuda: cuda(11, 0),
    cubins: &[cubin(8, 0), cubin(9, 0), cubin(10, 0), cubin(12, 0)],
};

const FP64: Module = Module {
    name: "fp64",
    cubins: &[cubin(8, 0), cubin(10, 0)],
    ..M16N8K16
};

const FP64_HOPPER: Module = Module {
    name: "fp64_hopper",
    target: Target::From(9, 0),
    ptx: (7, 8),
    cuda: cuda(11, 8),
    cubins: &[cubin(9, 0)],
};

const FP8: Module = Module {
    name: "fp8",
    target: Target::From(8, 9),
    ptx: (8, 4),
    cuda: cuda(12, 4),
    cubins: &[cubin(8, 9), cubin(12, 0)],
};

const WGMMA: Module = Module {
    name: "wgmma",
    target: Target::Exactly(9, 0),
    ptx: (8, 0),
    cuda: cuda(12, 0),
    cubins: &[exactly(9, 0)],
};

/// Machine code for exactly one architecture.
const fn exactly(major: u32, minor: u32) -> Cubin {
    Cubin {
        major,
        minor,
        exact: true,
    }
}

const TCGEN05: Module = Module {
    name: "tcgen05",
    target: Target::Family(10, 0),
    ptx: (8, 8),
    cuda: cuda(12, 9),
    cubins: &[exactly(10, 0), exactly(10, 3)],
};

/// `kind::i8`, which `ptxas` takes for `sm_100a` and refuses for `sm_100f` and `sm_103a`.
const TCGEN05_INT8: Module = Module {
    name: "tcgen05_int8",
    target: Target::Exactly(10, 0),
    ptx: (8, 6),
    cuda: cuda(12, 7),
    cubins: &[exactly(10, 0)],
};

/// All modules.
pub const MODULES: [Module; 13] = [
    MEMORY,
    SIMT,
    SIMT_HALF,
    DP4A,
    M8N8K4,
    M16N8K8,
    M16N8K16,
    FP64,
    FP64_HOPPER,
    FP8,
    WGMMA,
    TCGEN05,
    TCGEN05_INT8,
];

/// Variants that a format has, best first.
pub fn variants(format: Format) -> &'static [Variant] {
    match format {
        Format::Bf16 => &[Variant::Tcgen05, Variant::Wgmma, Variant::M16n8k16, Variant::Simt],
        Format::Fp16 => &[
            Variant::Tcgen05,
            Variant::Wgmma,
            Variant::M16n8k16,
            Variant::M16n8k8,
            Variant::M8n8k4,
            Variant::Simt,
        ],
        Format::Tf32 => &[Variant::Tcgen05, Variant::Wgmma, Variant::M16n8k16],
        Format::Fp8 => &[Variant::Tcgen05, Variant::Wgmma, Variant::Fp8Mma],
        Format::Int8 => &[
            Variant::Tcgen05,
            Variant::Wgmma,
            Variant::M16n8k16,
            Variant::M16n8k8,
            Variant::Simt,
        ],
        Format::Fp32 => &[Variant::Simt],
        Format::Fp64 => &[Variant::M16n8k16, Variant::Simt],
    }
}

/// The module of a variant for a format on a GPU; `None` where the variant has no such format.
pub fn module(variant: Variant, format: Format, capability: ComputeCapability) -> Option<Module> {
    if !variants(format).contains(&variant) {
        return None;
    }
    match variant {
        Variant::Simt if format == Format::Int8 && DP4A.target.includes(capability) => Some(DP4A),
        Variant::Simt if matches!(format, Format::Bf16 | Format::Fp16) => Some(SIMT_HALF),
        Variant::Simt => Some(SIMT),
        Variant::M8n8k4 => Some(M8N8K4),
        Variant::M16n8k8 => Some(M16N8K8),
        Variant::M16n8k16 if format == Format::Fp64 => match capability.major {
            9 => Some(FP64_HOPPER),
            // What has hardly any f64 makes the instruction of plain ones.
            12.. => None,
            _ => Some(FP64),
        },
        Variant::M16n8k16 => Some(M16N8K16),
        Variant::Fp8Mma => Some(FP8),
        Variant::Wgmma => Some(WGMMA),
        Variant::Tcgen05 if format == Format::Int8 => Some(TCGEN05_INT8),
        Variant::Tcgen05 => Some(TCGEN05),
    }
}

/// A file of the pack that a driver may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its name in the pack.
    pub name: String,
    /// What it is.
    pub source: CodeSource,
}

/// The files of a module that a GPU and its driver may take, best first; in the error why there is none.
pub fn images(
    module: &Module,
    capability: ComputeCapability,
    driver: CudaVersion,
) -> Result<Vec<Image>, String> {
    if !module.target.includes(capability) {
        return Err(match module.target {
            Target::From(major, minor) => {
                format!("needs compute capability {major}.{minor} or later, this GPU has {capability}")
            }
            Target::Exactly(major, minor) => {
                format!("is for compute capability {major}.{minor} alone, this GPU has {capability}")
            }
            Target::Family(major, minor) => {
                format!("is for the family of compute capability {major}.{minor}, this GPU has {capability}")
            }
        });
    }
    let mut found: Vec<Image> = module
        .cubins
        .iter()
        .rev()
        .filter(|cubin| {
            cubin.major == capability.major
                && cubin.minor <= capability.minor
                && (!cubin.exact || cubin.minor == capability.minor)
        })
        .map(|cubin| Image {
            name: format!(
                "cubin/{}.sm_{}{}{}.cubin",
                module.name,
                cubin.major,
                cubin.minor,
                if cubin.exact { "a" } else { "" }
            ),
            source: CodeSource::Cubin,
        })
        .collect();
    if driver >= module.cuda {
        found.push(Image {
            name: format!("ptx/{}.ptx", module.name),
            source: CodeSource::Ptx,
        });
    }
    if found.is_empty() {
        return Err(format!(
            "its PTX {}.{} needs a driver of CUDA {} or later, this one is of {driver}, and there is no machine code \
             for {capability}",
            module.ptx.0, module.ptx.1, module.cuda
        ));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn capability(major: u32, minor: u32) -> ComputeCapability {
        ComputeCapability { major, minor }
    }

    /// What a GPU would run for a format, best first, by a driver that is new enough for it.
    fn order(major: u32, minor: u32, format: Format) -> Vec<&'static str> {
        let capability = capability(major, minor);
        variants(format)
            .iter()
            .filter_map(|&variant| {
                let module = module(variant, format, capability)?;
                images(&module, capability, cuda(13, 5)).ok()?;
                Some(variant.name())
            })
            .collect()
    }

    #[test]
    fn each_generation_gets_the_newest_instructions_that_it_has() {
        assert_eq!(order(9, 0, Format::Bf16), ["wgmma", "m16n8k16", "simt"]);
        assert_eq!(order(10, 0, Format::Bf16), ["tcgen05", "m16n8k16", "simt"]);
        assert_eq!(order(10, 3, Format::Tf32), ["tcgen05", "m16n8k16"]);
        assert_eq!(
            order(10, 0, Format::Int8),
            ["tcgen05", "m16n8k16", "m16n8k8", "simt"]
        );
        assert_eq!(order(10, 3, Format::Int8), ["m16n8k16", "m16n8k8", "simt"]);
        assert_eq!(order(11, 0, Format::Bf16), ["m16n8k16", "simt"]);
        assert_eq!(order(10, 1, Format::Bf16), ["m16n8k16", "simt"]);
        assert_eq!(order(12, 0, Format::Fp8), ["fp8"]);
        assert_eq!(order(8, 6, Format::Fp8), [""; 0]);
        assert_eq!(order(8, 6, Format::Tf32), ["m16n8k16"]);
        assert_eq!(order(7, 5, Format::Fp16), ["m16n8k8", "m8n8k4", "simt"]);
        assert_eq!(order(7, 0, Format::Fp16), ["m8n8k4", "simt"]);
        assert_eq!(order(6, 0, Format::Int8), ["simt"]);
        assert_eq!(order(5, 2, Format::Fp64), ["simt"]);
    }

    #[test]
    fn a_driver_that_is_too_old_for_the_ptx_still_gets_machine_code() {
        let found = images(&FP8, capability(8, 9), cuda(12, 0)).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name, "cubin/fp8.sm_89.cubin");
        let refused = images(&FP8, capability(9, 0), cuda(12, 0)).unwrap_err();
        assert!(
            refused.contains("needs a driver of CUDA 12.4 or later"),
            "{refused}"
        );
    }

    #[test]
    fn machine_code_is_taken_within_a_major_version_and_never_by_an_older_gpu() {
        let of = |module: &Module, major, minor| -> Vec<String> {
            images(module, capability(major, minor), cuda(13, 0))
                .map(|found| found.into_iter().map(|image| image.name).collect())
                .unwrap_or_default()
        };
        assert_eq!(
            of(&M16N8K16, 8, 6),
            ["cubin/m16n8k16.sm_80.cubin", "ptx/m16n8k16.ptx"]
        );
        assert_eq!(of(&M16N8K16, 11, 0), ["ptx/m16n8k16.ptx"]);
        assert_eq!(of(&DP4A, 6, 1)[0], "cubin/dp4a.sm_61.cubin");
        assert_eq!(of(&WGMMA, 9, 0)[0], "cubin/wgmma.sm_90a.cubin");
        assert!(of(&WGMMA, 10, 0).is_empty());
        assert_eq!(
            of(&TCGEN05, 10, 3),
            ["cubin/tcgen05.sm_103a.cubin", "ptx/tcgen05.ptx"]
        );
        assert_eq!(of(&TCGEN05, 10, 7), ["ptx/tcgen05.ptx"]);
        let elsewhere = images(&TCGEN05, capability(9, 0), cuda(13, 0)).unwrap_err();
        assert_eq!(
            elsewhere,
            "is for the family of compute capability 10.0, this GPU has 9.0"
        );
    }

    #[test]
    fn every_file_that_may_be_asked_for_is_in_the_pack() {
        let names = names().unwrap();
        for module in MODULES {
            for major in 5..=12 {
                for minor in 0..=9 {
                    for image in images(&module, capability(major, minor), cuda(13, 5)).unwrap_or_default() {
                        assert!(names.contains(&image.name.as_str()), "{}", image.name);
                        assert!(!unpack(&image.name).unwrap().is_empty());
                    }
                }
            }
        }
    }

    #[test]
    fn every_variant_has_its_entry_points() {
        for &format in Format::ALL {
            for &variant in variants(format) {
                let module = module(variant, format, capability(9, 0)).unwrap();
                let ptx = String::from_utf8(unpack(&format!("ptx/{}.ptx", module.name)).unwrap()).unwrap();
                for kind in ["gemm", "loop"] {
                    let entry = format!(".entry {kind}_{format}(");
                    assert!(ptx.contains(&entry), "{} has no {entry}", module.name);
                }
            }
        }
    }
}
