//! Kernels as the driver takes them: the first image of a module that it does not refuse.
#![expect(unsafe_code, reason = "the driver's functions are called here")]

use std::ffi::{CString, c_int, c_void};
use std::ptr;
use std::sync::atomic::Ordering;

use super::gpu::Gpu;
use super::library::Raw;
use crate::device::{CodeSource, Device as _};
use crate::kernels::{self, Module};

/// `CUDA_ERROR_UNKNOWN`.
const UNKNOWN: c_int = 999;

/// A function of a loaded module.
#[derive(Debug, Clone, Copy)]
pub(super) struct Function {
    pub(super) raw: Raw,
    pub(super) source: CodeSource,
}

/// A module as the driver took it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Loaded {
    raw: Raw,
    source: CodeSource,
}

impl Gpu {
    /// A kernel of a variant, and its module loaded if it was not yet; in the error why there is none.
    pub(super) fn kernel(&self, module: &Module, entry: &str) -> Result<Function, String> {
        let known = self.modules.borrow().get(module.name).cloned();
        let loaded = known.unwrap_or_else(|| {
            let loaded = self.load(module);
            self.modules.borrow_mut().insert(module.name, loaded.clone());
            loaded
        })?;
        let name = CString::new(entry).map_err(|error| error.to_string())?;
        let mut raw = ptr::null_mut();
        // SAFETY: the module is loaded, the name ends with a zero, one handle is written.
        let code =
            unsafe { (self.library.functions.module_get_function)(&raw mut raw, loaded.raw, name.as_ptr()) };
        if code == 0 {
            Ok(Function {
                raw,
                source: loaded.source,
            })
        } else {
            Err(format!("has no `{entry}`: {}", self.library.code_name(code)))
        }
    }

    /// The first image of a module that the driver takes.
    fn load(&self, module: &Module) -> Result<Loaded, String> {
        let mut images = kernels::images(module, self.facts().compute_capability, self.library.version())?;
        if self.ptx_alone {
            images.retain(|image| image.source == CodeSource::Ptx);
        }
        let mut reasons = Vec::new();
        for image in images {
            // PTX ends with a zero; a cubin knows its own length.
            let mut data = kernels::unpack(&image.name).map_err(|error| error.to_string())?;
            data.push(0);
            let is_compiled = image.source == CodeSource::Ptx;
            if is_compiled {
                self.compiling.fetch_add(1, Ordering::Relaxed);
            }
            let loaded = self.load_image(&data);
            if is_compiled {
                self.compiling.fetch_sub(1, Ordering::Relaxed);
            }
            match loaded {
                Ok(raw) => {
                    return Ok(Loaded {
                        raw,
                        source: image.source,
                    });
                }
                Err(reason) => reasons.push(format!("`{}`: {reason}", image.name)),
            }
        }
        if reasons.is_empty() {
            reasons.push(format!(
                "the driver is of CUDA {}, its PTX of {}",
                self.library.version(),
                module.cuda
            ));
        }
        Err(reasons.join("; "))
    }

    fn load_image(&self, data: &[u8]) -> Result<Raw, String> {
        let is_ptx = !data.starts_with(b"\x7fELF");
        match self.try_image(data) {
            // Where there is no compiler, the first PTX of a process gets no more than this and the next one is told why,
            // as driver 580.159 has it.
            Err((UNKNOWN, _)) if is_ptx => self.try_image(data),
            tried => tried,
        }
        .map_err(|(_, why)| why)
    }

    /// In the error the driver's code, and that in words.
    fn try_image(&self, data: &[u8]) -> Result<Raw, (c_int, String)> {
        // `CU_JIT_ERROR_LOG_BUFFER` and its size.
        let mut log = vec![0_u8; 4096];
        let mut options: [c_int; 2] = [5, 6];
        let mut values: [*mut c_void; 2] = [log.as_mut_ptr().cast(), ptr::without_provenance_mut(log.len())];
        let mut raw = ptr::null_mut();
        // SAFETY: the image ends with a zero, there are two options and values, and the log is as long as is said.
        let code = unsafe {
            (self.library.functions.module_load_data)(
                &raw mut raw,
                data.as_ptr().cast(),
                2,
                options.as_mut_ptr(),
                values.as_mut_ptr(),
            )
        };
        if code == 0 {
            return Ok(raw);
        }
        let said = log.split(|&byte| byte == 0).next().unwrap_or_default();
        let said = String::from_utf8_lossy(said);
        let why = match code {
            209 | 200 => " (no code for this GPU)",
            218 => " (the driver's compiler refused it)",
            221 => " (`libnvidia-ptxjitcompiler.so.1` is not here)",
            222 => " (the PTX is newer than the driver)",
            _ => "",
        };
        let name = self.library.code_name(code);
        let why = match said.lines().next() {
            Some(line) => format!("{name}{why}: {}", line.trim()),
            None => format!("{name}{why}"),
        };
        Err((code, why))
    }
}
