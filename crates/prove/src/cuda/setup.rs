//! Why no GPU can be used here, and what to do about it. Pure: what was seen is told by the caller.

/// What the loader saw around it: it decides what a failure means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// `/dev/nvidia0` and its like.
    pub device_files: usize,
    /// `/dev/nvidiactl` is there.
    pub control_file: bool,
    /// Directory of CUDA's forward-compatibility libcuda that the loader found first, if one did.
    pub compat: Option<String>,
}

/// CUDA can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// No library and no device.
    #[error(
        "no GPU was given to this container: there is neither `libcuda.so.1` nor `/dev/nvidia*`; request \
         `nvidia.com/gpu` and set `runtimeClassName: nvidia`, or on a host install the driver"
    )]
    NothingInjected,
    /// Devices without the library.
    #[error(
        "the GPU's device files are here but `libcuda.so.1` is not ({0}); set \
         `NVIDIA_DRIVER_CAPABILITIES=compute,utility` and use an image with glibc"
    )]
    NoLibrary(String),
    /// Something is called so and isn't it.
    #[error(
        "`{path}` is not the driver's library: it has no `{symbol}`; remove it or put the driver's before it"
    )]
    NotCuda {
        /// The file.
        path: String,
        /// What it lacks.
        symbol: &'static str,
    },
    /// The library, but no device file.
    #[error(
        "`libcuda.so.1` is here but no `/dev/nvidia*` is; request `nvidia.com/gpu` and set \
         `runtimeClassName: nvidia`, or on a host load the kernel module: `sudo nvidia-smi`"
    )]
    NoDeviceFiles,
    /// The driver finds no GPU, though there are device files.
    #[error(
        "the driver finds no GPU (100): `CUDA_VISIBLE_DEVICES` may be empty, MIG mode may be on with no instance, or \
         the GPU fell off the bus; see `nvidia-smi -L` and `dmesg | grep -i xid`"
    )]
    NoDevice,
    /// The switch fabric is not up.
    #[error(
        "the NVLink fabric is not up (802); on the node see `systemctl status nvidia-fabricmanager`, and on GB200 \
         `nvidia-imex-ctl -N`"
    )]
    FabricNotReady,
    /// User and kernel part of the driver differ.
    #[error(
        "the driver's library and its kernel module are of different versions (803); restart the node after the \
         driver was updated, or take `/usr/local/cuda/compat` out of `LD_LIBRARY_PATH`"
    )]
    VersionMismatch,
    /// Forward compatibility where the card has none.
    #[error(
        "a newer libcuda{} was put before the driver's and this card does not allow it (804); take \
         `/usr/local/cuda/compat` out of `LD_LIBRARY_PATH`",
        .0.as_ref().map(|path| format!(" (`{path}`)")).unwrap_or_default()
    )]
    CompatRefused(Option<String>),
    /// No context: memory.
    #[error("the GPU has no memory left for a context (2): other processes hold it; see `pitcrew gpus`")]
    NoMemory,
    /// No context: exclusive mode or a process that has it.
    #[error(
        "the GPU is in use and in exclusive mode (46); see `nvidia-smi -q -d COMPUTE` for the process that has it"
    )]
    InUse,
    /// The driver is older than anything here.
    #[error("the driver is too old, {0}; install one of CUDA 8.0 (driver 367) or later")]
    DriverTooOld(String),
    /// Not permitted.
    #[error(
        "the driver may not be used here (800); look at the container's device cgroup and seccomp profile"
    )]
    NotPermitted,
    /// The driver takes none of the kernels.
    #[error("no kernel runs on this GPU with this driver: {0}; install a newer driver")]
    NoKernel(String),
    /// The driver would compile the kernels and has no compiler here.
    #[error(
        "the driver's compiler is not here: {0}; set `NVIDIA_DRIVER_CAPABILITIES=compute,utility`, or leave out `--ptx` and \
         `CUDA_FORCE_PTX_JIT`"
    )]
    NoCompiler(String),
    /// MIG device that can't be used.
    #[error(
        "the GPU can't be used by CUDA (101: no such device); `CUDA_VISIBLE_DEVICES` names one that is not here"
    )]
    NoSuchDevice,
    /// Anything else.
    #[error(
        "the driver could not start: `{call}` failed with {code} ({name}); see `dmesg | grep -i -e nvrm -e xid`"
    )]
    Failed {
        /// The function.
        call: &'static str,
        /// Its code.
        code: i32,
        /// The code's name.
        name: String,
    },
}

impl SetupError {
    /// A short name for reports, which does not change.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NothingInjected => "nothing-injected",
            Self::NoLibrary(_) => "no-library",
            Self::NotCuda { .. } => "not-cuda",
            Self::NoDeviceFiles => "no-device-files",
            Self::NoDevice => "no-device",
            Self::FabricNotReady => "fabric-not-ready",
            Self::VersionMismatch => "version-mismatch",
            Self::CompatRefused(_) => "compat-refused",
            Self::NoMemory => "no-memory",
            Self::InUse => "in-use",
            Self::DriverTooOld(_) => "driver-too-old",
            Self::NotPermitted => "not-permitted",
            Self::NoKernel(_) => "no-kernel",
            Self::NoCompiler(_) => "no-compiler",
            Self::NoSuchDevice => "no-such-device",
            Self::Failed { .. } => "failed",
        }
    }

    /// What it means that the driver took none of the kernels, for the reason that it gives.
    pub fn of_kernels(why: String) -> Self {
        if why.contains("JIT_COMPILER") || why.contains("ptxjitcompiler") {
            Self::NoCompiler(why)
        } else {
            Self::NoKernel(why)
        }
    }

    /// What it means that no library could be loaded; `why` is what the loader said of the best candidate.
    pub fn of_load(why: String, around: &Surroundings) -> Self {
        if around.device_files == 0 && !around.control_file {
            Self::NothingInjected
        } else {
            Self::NoLibrary(why)
        }
    }

    /// What a code of a call means.
    pub fn of_code(call: &'static str, code: i32, name: String, around: &Surroundings) -> Self {
        match code {
            2 => Self::NoMemory,
            35 | 222 => Self::DriverTooOld(format!("an older version than this needs ({code})")),
            46 => Self::InUse,
            100 | 999 if around.device_files == 0 => Self::NoDeviceFiles,
            100 => Self::NoDevice,
            101 => Self::NoSuchDevice,
            800 => Self::NotPermitted,
            802 => Self::FabricNotReady,
            803 => Self::VersionMismatch,
            804 => Self::CompatRefused(around.compat.clone()),
            _ => Self::Failed { call, code, name },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_devices() -> Surroundings {
        Surroundings {
            device_files: 1,
            control_file: true,
            compat: None,
        }
    }

    #[test]
    fn without_library_the_device_files_tell_what_was_not_injected() {
        let nothing = SetupError::of_load("no such file".to_owned(), &Surroundings::default());
        assert_eq!(nothing.code(), "nothing-injected");
        assert!(
            nothing.to_string().contains("runtimeClassName: nvidia"),
            "{nothing}"
        );
        let devices = SetupError::of_load("no such file".to_owned(), &with_devices());
        assert_eq!(devices.code(), "no-library");
        assert!(
            devices
                .to_string()
                .contains("NVIDIA_DRIVER_CAPABILITIES=compute,utility"),
            "{devices}"
        );
    }

    #[test]
    fn each_code_of_the_start_has_its_own_cause_and_fix() {
        let of = |code| SetupError::of_code("cuInit", code, "NAME".to_owned(), &with_devices());
        for (code, name, fix) in [
            (100, "no-device", "nvidia-smi -L"),
            (802, "fabric-not-ready", "nvidia-fabricmanager"),
            (803, "version-mismatch", "restart the node"),
            (804, "compat-refused", "/usr/local/cuda/compat"),
            (2, "no-memory", "pitcrew gpus"),
            (46, "in-use", "nvidia-smi"),
            (101, "no-such-device", "CUDA_VISIBLE_DEVICES"),
            (800, "not-permitted", "cgroup"),
            (35, "driver-too-old", "install one of"),
            (222, "driver-too-old", "install one of"),
            (999, "failed", "dmesg"),
        ] {
            let error = of(code);
            assert_eq!(error.code(), name);
            assert!(error.to_string().contains(fix), "{error}");
            assert!(!error.to_string().ends_with('.'));
        }
    }

    #[test]
    fn no_device_without_device_files_is_said_so() {
        for code in [100, 999] {
            let error = SetupError::of_code("cuInit", code, String::new(), &Surroundings::default());
            assert_eq!(error, SetupError::NoDeviceFiles);
        }
    }

    #[test]
    fn a_compat_library_is_named() {
        let around = Surroundings {
            compat: Some("/usr/local/cuda-13.0/compat/libcuda.so.1".to_owned()),
            ..with_devices()
        };
        let error = SetupError::of_code("cuInit", 804, String::new(), &around);
        assert!(error.to_string().contains("cuda-13.0"), "{error}");
    }
}
