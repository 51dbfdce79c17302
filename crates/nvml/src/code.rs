//! What a call of NVML can return (`nvmlReturn_t`), and what that means to us.

use std::fmt;

use pitcrew_core::Reading;
use pitcrew_core::ports::GpuError;

/// A value, or NVML's reason for giving none.
pub(crate) type Answer<T> = Result<T, Code>;

/// An `nvmlReturn_t` other than success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Code(pub(crate) u32);

impl Code {
    pub(crate) const UNINITIALIZED: Self = Self(1);
    pub(crate) const INVALID_ARGUMENT: Self = Self(2);
    pub(crate) const NOT_SUPPORTED: Self = Self(3);
    pub(crate) const NO_PERMISSION: Self = Self(4);
    pub(crate) const NOT_FOUND: Self = Self(6);
    pub(crate) const INSUFFICIENT_SIZE: Self = Self(7);
    pub(crate) const DRIVER_NOT_LOADED: Self = Self(9);
    pub(crate) const TIMEOUT: Self = Self(10);
    pub(crate) const FUNCTION_NOT_FOUND: Self = Self(13);
    pub(crate) const GPU_IS_LOST: Self = Self(15);
    pub(crate) const RESET_REQUIRED: Self = Self(16);
    pub(crate) const VERSION_MISMATCH: Self = Self(18);
    pub(crate) const IN_USE: Self = Self(19);
    pub(crate) const INSUFFICIENT_RESOURCES: Self = Self(23);
    pub(crate) const ARGUMENT_VERSION_MISMATCH: Self = Self(25);
    pub(crate) const DEPRECATED: Self = Self(26);
    pub(crate) const UNKNOWN: Self = Self(999);

    /// Success, or the code.
    pub(crate) fn check(code: u32) -> Answer<()> {
        if code == 0 { Ok(()) } else { Err(Self(code)) }
    }

    /// The device or the driver has no such thing: the driver says so, or it is too old to know the call or its
    /// arguments, or too new to support it still.
    pub(crate) fn is_unsupported(self) -> bool {
        matches!(
            self,
            Self::NOT_SUPPORTED
                | Self::DEPRECATED
                | Self::FUNCTION_NOT_FOUND
                | Self::ARGUMENT_VERSION_MISMATCH
        )
    }

    /// An older form of the call may be known where this one isn't.
    pub(crate) fn wants_older_call(self) -> bool {
        matches!(self, Self::FUNCTION_NOT_FOUND | Self::ARGUMENT_VERSION_MISMATCH)
    }

    /// The driver as a whole no longer works; no GPU's fault.
    fn is_of_driver(self) -> bool {
        matches!(
            self,
            Self::UNINITIALIZED | Self::DRIVER_NOT_LOADED | Self::VERSION_MISMATCH
        )
    }

    /// As `nvmlErrorString` words it; kept here, as a broken library can't be asked.
    fn words(self) -> Option<&'static str> {
        Some(match self.0 {
            1 => "Uninitialized",
            2 => "Invalid Argument",
            3 => "Not Supported",
            4 => "Insufficient Permissions",
            5 => "Already Initialized",
            6 => "Not Found",
            7 => "Insufficient Size",
            8 => "Insufficient External Power",
            9 => "Driver Not Loaded",
            10 => "Timeout",
            11 => "Interrupt Request Issue",
            12 => "NVML Shared Library Not Found",
            13 => "Function Not Found",
            14 => "Corrupted infoROM",
            15 => "GPU is lost",
            16 => "GPU requires reset",
            17 => "GPU access blocked by the operating system",
            18 => "Driver/library version mismatch",
            19 => "In use by another client",
            20 => "Insufficient Memory",
            21 => "No Data",
            22 => "The requested vgpu operation is not available on target device, because ECC is enabled",
            23 => "Insufficient Resources",
            24 => "Frequency not supported",
            25 => "Argument version mismatch",
            26 => "Deprecated",
            27 => "Not Ready",
            28 => "GPU not found",
            29 => "Invalid State",
            30 => "Reset type not supported",
            999 => "Unknown Error",
            _ => return None,
        })
    }

    /// What is wrong with a driver that can't be initialised, in one line.
    pub(crate) fn of_init(self) -> String {
        let why = match self {
            Self::DRIVER_NOT_LOADED => "its kernel module is not loaded",
            Self::VERSION_MISMATCH => {
                "the kernel module that is loaded and the library are of different versions, as after an update \
                 without a reboot"
            }
            Self::NO_PERMISSION => "`/dev/nvidiactl` may not be opened by this user or in this container",
            Self::GPU_IS_LOST => "a GPU has fallen off the bus",
            Self::RESET_REQUIRED => "a GPU must be reset first",
            Self(11) => "the interrupts of a GPU do not arrive",
            Self(12) => "a part of its libraries is missing",
            Self(17) => "the operating system keeps it from the GPU",
            Self(20) => "it has not enough memory",
            _ => "it gives no better reason than its code",
        };
        format!("{why} (`nvmlInit_v2`: {self})")
    }

    /// What became of a request to this GPU.
    pub(crate) fn of_request(self, gpu: &str, what: &str) -> GpuError {
        let gpu = gpu.to_owned();
        match self {
            Self::GPU_IS_LOST => GpuError::GpuLost(gpu),
            Self::IN_USE => GpuError::InUse {
                gpu,
                holder: "another client of the driver holds it".to_owned(),
            },
            code if code.is_unsupported() => GpuError::NotSupported {
                gpu,
                what: what.to_owned(),
            },
            code if code.is_of_driver() => GpuError::DriverFailed(code.to_string()),
            Self::NO_PERMISSION => GpuError::Refused {
                gpu,
                reason: format!("{what}: {self}; it takes root, or the MIG capability in a container"),
            },
            code => GpuError::Refused {
                gpu,
                reason: format!("{what}: {code}"),
            },
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.words() {
            Some(words) => f.write_str(words),
            None => write!(f, "NVML error {}", self.0),
        }
    }
}

/// An answer as a reading.
pub(crate) fn reading<T>(answer: Answer<T>) -> Reading<T> {
    match answer {
        Ok(value) => Reading::Value(value),
        Err(code) if code.is_unsupported() => Reading::NotSupported,
        Err(code) => Reading::Failed(code.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_card_lacks_is_no_failure_and_everything_else_is_told_in_nvmls_words() {
        for code in [
            Code::NOT_SUPPORTED,
            Code::FUNCTION_NOT_FOUND,
            Code::ARGUMENT_VERSION_MISMATCH,
        ] {
            assert_eq!(reading::<u8>(Err(code)), Reading::NotSupported);
        }
        for number in 1..1100 {
            let code = Code(number);
            if !code.is_unsupported() {
                let reading = reading::<u8>(Err(code));
                assert!(
                    reading.failure().is_some_and(|reason| !reason.is_empty()),
                    "{number}"
                );
            }
        }
        assert_eq!(Code::GPU_IS_LOST.to_string(), "GPU is lost");
        assert_eq!(Code(77).to_string(), "NVML error 77");
    }

    #[test]
    fn every_reason_of_a_driver_that_does_not_start_is_one_line_with_its_code() {
        for number in (1..40).chain([999]) {
            let line = Code(number).of_init();
            assert!(!line.contains('\n') && line.contains("nvmlInit_v2"), "{line}");
        }
        assert!(
            Code::VERSION_MISMATCH
                .of_init()
                .contains("Driver/library version mismatch")
        );
    }

    #[test]
    fn a_request_fails_as_the_code_says() {
        let of = |code: Code| code.of_request("GPU-1", "MIG");
        assert_eq!(of(Code::GPU_IS_LOST), GpuError::GpuLost("GPU-1".to_owned()));
        assert!(matches!(of(Code::NOT_SUPPORTED), GpuError::NotSupported { .. }));
        assert!(matches!(of(Code::IN_USE), GpuError::InUse { .. }));
        assert!(matches!(of(Code::UNINITIALIZED), GpuError::DriverFailed(_)));
        assert!(
            matches!(of(Code::NO_PERMISSION), GpuError::Refused { reason, .. } if reason.contains("root"))
        );
    }
}
