//! The C boundary: what functions return, what pointers become, and the macro that declares an export.
//!
//! Soundness rests on one promise that every NVML caller makes by calling: a pointer is null, or valid for what the
//! header says of that parameter. [`exports!`] takes that promise once for each parameter ([`FromC::from_c`]);
//! everything after that is safe code that checks for null and for lengths.

use std::ffi::{CStr, c_char, c_double, c_int, c_uint, c_ulong, c_ulonglong};
use std::mem::size_of;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nvml_wrapper_sys::bindings as nvml;
use pitcrew_core::Reading;

use crate::world::Call;

/// NVML's error codes under short names.
pub(crate) mod code {
    use super::nvml;

    pub(crate) const SUCCESS: u32 = nvml::nvmlReturn_enum_NVML_SUCCESS;
    pub(crate) const UNINITIALIZED: u32 = nvml::nvmlReturn_enum_NVML_ERROR_UNINITIALIZED;
    pub(crate) const INVALID_ARGUMENT: u32 = nvml::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT;
    pub(crate) const NOT_SUPPORTED: u32 = nvml::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED;
    pub(crate) const NOT_FOUND: u32 = nvml::nvmlReturn_enum_NVML_ERROR_NOT_FOUND;
    pub(crate) const INSUFFICIENT_SIZE: u32 = nvml::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE;
    pub(crate) const DRIVER_NOT_LOADED: u32 = nvml::nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED;
    pub(crate) const TIMEOUT: u32 = nvml::nvmlReturn_enum_NVML_ERROR_TIMEOUT;
    pub(crate) const GPU_IS_LOST: u32 = nvml::nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST;
    pub(crate) const IN_USE: u32 = nvml::nvmlReturn_enum_NVML_ERROR_IN_USE;
    pub(crate) const INSUFFICIENT_RESOURCES: u32 = nvml::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_RESOURCES;
    pub(crate) const VERSION_MISMATCH: u32 = nvml::nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    pub(crate) const UNKNOWN: u32 = nvml::nvmlReturn_enum_NVML_ERROR_UNKNOWN;
}

/// NVML's words for its codes, as `nvmlErrorString` gives them. A scenario's reason for a failed reading that is one
/// of them comes out as that code.
const ERRORS: &[(u32, &CStr)] = &[
    (0, c"Success"),
    (1, c"Uninitialized"),
    (2, c"Invalid Argument"),
    (3, c"Not Supported"),
    (4, c"Insufficient Permissions"),
    (5, c"Already Initialized"),
    (6, c"Not Found"),
    (7, c"Insufficient Size"),
    (8, c"Insufficient External Power"),
    (9, c"Driver Not Loaded"),
    (10, c"Timeout"),
    (11, c"Interrupt Request Issue"),
    (12, c"NVML Shared Library Not Found"),
    (13, c"Function Not Found"),
    (14, c"Corrupted infoROM"),
    (15, c"GPU is lost"),
    (16, c"GPU requires reset"),
    (17, c"GPU access blocked by the operating system"),
    (18, c"Driver/library version mismatch"),
    (19, c"In use by another client"),
    (20, c"Insufficient Memory"),
    (21, c"No data"),
    (22, c"vGPU does not support ECC"),
    (23, c"Insufficient Resources"),
    (24, c"Frequency Not Supported"),
    (25, c"Argument version mismatch"),
    (26, c"Deprecated"),
    (27, c"Not Ready"),
    (28, c"GPU Not Found"),
    (29, c"Invalid State"),
    (30, c"Reset Type Not Supported"),
    (999, c"Unknown Error"),
];

/// NVML's words for a code.
pub(crate) fn error_string(of: u32) -> &'static CStr {
    ERRORS
        .iter()
        .find(|(known, _)| *known == of)
        .map_or(c"Unknown Error", |(_, text)| text)
}

/// The code that a scenario's reason means.
pub(crate) fn code_of(reason: &str) -> u32 {
    ERRORS
        .iter()
        .find(|(_, text)| text.to_str() == Ok(reason))
        .map_or(code::UNKNOWN, |(known, _)| *known)
}

/// What a function has to say, or NVML's code for why it hasn't.
pub(crate) type Answer<T = ()> = Result<T, u32>;

/// A reading as NVML gives it.
pub(crate) trait ReadingExt<T> {
    /// The value, or the code for its absence.
    fn answer(&self) -> Answer<T>;
}

impl<T: Clone> ReadingExt<T> for Reading<T> {
    fn answer(&self) -> Answer<T> {
        match self {
            Self::Value(value) => Ok(value.clone()),
            Self::NotSupported => Err(code::NOT_SUPPORTED),
            Self::Failed(reason) => Err(code_of(reason)),
        }
    }
}

/// Makes a safe parameter of a C one.
pub(crate) trait FromC<C> {
    /// # Safety
    /// A pointer must be null, or valid for what the header says of the parameter until the call returns: reads,
    /// and writes where it isn't `const`, of one value, or of as many as the count parameter says.
    unsafe fn from_c(value: C) -> Self;
}

macro_rules! plain {
    ($($ty:ty),*) => {$(
        impl FromC<$ty> for $ty {
            unsafe fn from_c(value: $ty) -> Self {
                value
            }
        }
    )*};
}
plain!(c_uint, c_int, c_ulong);

/// A pointer parameter that the function writes through, or a handle.
pub(crate) struct Out<T>(*mut T);

impl<T> FromC<*mut T> for Out<T> {
    unsafe fn from_c(pointer: *mut T) -> Self {
        Self(pointer)
    }
}

impl<T> Out<T> {
    /// The address, for handles: they are looked up, never followed.
    pub(crate) fn address(&self) -> usize {
        self.0.addr()
    }

    pub(crate) fn is_null(&self) -> bool {
        self.0.is_null()
    }

    /// Refuses null.
    pub(crate) fn present(&self) -> Answer {
        if self.0.is_null() {
            Err(code::INVALID_ARGUMENT)
        } else {
            Ok(())
        }
    }

    /// Writes the value.
    pub(crate) fn set(&self, value: T) -> Answer {
        self.present()?;
        // SAFETY: not null, so valid for a write by the promise of `from_c`. Some callers don't align.
        unsafe { self.0.write_unaligned(value) };
        Ok(())
    }

    /// Reads what the caller put there.
    pub(crate) fn get(&self) -> Answer<T>
    where
        T: Copy,
    {
        self.present()?;
        // SAFETY: not null, so valid for a read by the promise of `from_c`; NVML's structs are plain numbers and
        // pointers, for which any bytes will do.
        Ok(unsafe { self.0.read_unaligned() })
    }

    /// Writes several; the caller's count says that there is room.
    pub(crate) fn fill(&self, room: usize, values: impl IntoIterator<Item = T>) -> Answer {
        self.present()?;
        for (at, value) in values.into_iter().take(room).enumerate() {
            // SAFETY: not null, so valid for `room` writes by the promise of `from_c`, and `at` is below `room`.
            unsafe { self.0.add(at).write_unaligned(value) };
        }
        Ok(())
    }

    /// One of several.
    pub(crate) fn nth(&self, at: usize) -> Self {
        Self(self.0.wrapping_add(at))
    }

    /// A pointer that stands in the struct that the caller gave.
    pub(crate) fn pointing_to<U>(&self, inside: fn(&T) -> *mut U) -> Answer<Out<U>>
    where
        T: Copy,
    {
        // What the caller vouches for goes for the pointers in its structs too.
        Ok(Out(inside(&self.get()?)))
    }

    /// The same place as another type: the struct that the version in it names, or its beginning.
    pub(crate) fn cast<U>(&self) -> Out<U> {
        Out(self.0.cast())
    }

    /// The version at the beginning of a versioned struct, after checking that it is one of these: bytes of the
    /// struct and number. Returns the number.
    pub(crate) fn version(&self, known: &[(usize, u32)]) -> Answer<u32> {
        let given = self.cast::<c_uint>().get()?;
        known
            .iter()
            .find(|&&(size, number)| given == struct_version(size, number))
            .map(|&(_, number)| number)
            .ok_or(code::VERSION_MISMATCH)
    }

    /// [`Out::version`] of a struct that has one version only.
    pub(crate) fn only_version(&self) -> Answer {
        self.version(&[(size_of::<T>(), 1)]).map(drop)
    }
}

/// `NVML_STRUCT_VERSION` of the header.
pub(crate) fn struct_version(size: usize, number: u32) -> c_uint {
    c_uint::try_from(size).unwrap_or(c_uint::MAX) | number << 24
}

impl Out<c_char> {
    /// Writes text and its end into a buffer of `length` bytes.
    pub(crate) fn text(&self, length: c_uint, text: &str) -> Answer {
        self.present()?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if text.len() >= length {
            return Err(code::INSUFFICIENT_SIZE);
        }
        let bytes = text.bytes().filter(|byte| *byte != 0).chain([0]);
        self.fill(length, bytes.map(|byte| c_char::from_ne_bytes([byte])))
    }
}

/// A pointer parameter that the function only reads.
pub(crate) struct In<T>(*const T);

impl<T> FromC<*const T> for In<T> {
    unsafe fn from_c(pointer: *const T) -> Self {
        Self(pointer)
    }
}

impl<T: Copy> In<T> {
    /// What the caller put there.
    pub(crate) fn get(&self) -> Answer<T> {
        if self.0.is_null() {
            return Err(code::INVALID_ARGUMENT);
        }
        // SAFETY: not null, so valid for a read by the promise of `from_c`.
        Ok(unsafe { self.0.read_unaligned() })
    }
}

impl In<c_char> {
    /// The caller's text.
    pub(crate) fn text(&self) -> Answer<String> {
        if self.0.is_null() {
            return Err(code::INVALID_ARGUMENT);
        }
        // SAFETY: not null, so a C string by the header's word, which the promise of `from_c` covers.
        let text = unsafe { CStr::from_ptr(self.0) };
        text.to_str()
            .map(str::to_owned)
            .map_err(|_| code::INVALID_ARGUMENT)
    }
}

/// The bytes of a UUID struct: text, or in the first 16 the UUID itself.
pub(crate) fn uuid_bytes(uuid: &nvml::nvmlUUID_t) -> [u8; 41] {
    // SAFETY: all parts of the union are plain bytes, and this is the longest, which was read with the struct.
    let text = unsafe { uuid.value.str_ };
    text.map(|byte| byte.to_ne_bytes()[0])
}

/// Text as a fixed array of C's, cut off where it doesn't fit, and always ended.
pub(crate) fn chars<const N: usize>(text: &str) -> [c_char; N] {
    let mut array = [0; N];
    for (to, byte) in array.iter_mut().take(N.saturating_sub(1)).zip(text.bytes()) {
        *to = c_char::from_ne_bytes([byte]);
    }
    array
}

/// How many, as C counts.
pub(crate) fn count(of: usize) -> c_uint {
    c_uint::try_from(of).unwrap_or(c_uint::MAX)
}

/// A truth, as C has it.
pub(crate) fn flag(on: bool) -> c_uint {
    c_uint::from(on)
}

/// Gives a list the way most of NVML does: `count` holds the room, and afterwards how many there are.
pub(crate) fn list<T>(count_out: &Out<c_uint>, array: &Out<T>, values: Vec<T>) -> Answer {
    let room = count_out.get()?;
    let there = count(values.len());
    count_out.set(there)?;
    if there > room || (array.is_null() && there > 0) {
        return Err(code::INSUFFICIENT_SIZE);
    }
    if there == 0 {
        return Ok(());
    }
    array.fill(values.len(), values)
}

/// Runs the body of an export: finds the world, keeps panics inside, and turns the answer into C's.
pub(crate) fn run(name: &'static str, body: impl FnOnce(&Call) -> Answer) -> c_uint {
    contain(|| {
        let call = Call::begin(name)?;
        body(&call)
    })
}

/// Keeps a panic inside: unwinding into C is undefined. State is behind locks that survive it.
pub(crate) fn contain(body: impl FnOnce() -> Answer) -> c_uint {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => code::SUCCESS,
        Ok(Err(code)) => code,
        Err(_) => code::UNKNOWN,
    }
}

/// Declares exports. The closure's parameter is the [`Call`]; pointer parameters are [`Out`] and [`In`] in the body.
macro_rules! exports {
    ($(
        $(#[$meta:meta])*
        fn $name:ident($($arg:ident: $ty:ty),* $(,)?) |$call:pat_param| $body:block
    )*) => {$(
        $(#[$meta])*
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $name($($arg: $ty),*) -> ::std::ffi::c_uint {
            $(
                // SAFETY: the caller of NVML vouches for its pointers; see `abi`.
                let $arg: <$ty as $crate::abi::C>::Safe = unsafe { $crate::abi::FromC::from_c($arg) };
            )*
            $crate::abi::run(stringify!($name), |$call| $body)
        }
    )*};
}

/// A C parameter's type and the safe one that stands for it.
pub(crate) trait C {
    /// The safe one.
    type Safe: FromC<Self>
    where
        Self: Sized;
}

impl C for c_uint {
    type Safe = Self;
}
impl C for c_int {
    type Safe = Self;
}
impl C for c_ulong {
    type Safe = Self;
}
impl<T> C for *mut T {
    type Safe = Out<T>;
}
impl<T> C for *const T {
    type Safe = In<T>;
}

// `unsigned long long` is `unsigned long` where the mock is built; were they two types, the second would need its
// own line above.
const _: () = assert!(size_of::<c_ulong>() == size_of::<c_ulonglong>() && size_of::<c_double>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    /// As `NVML_STRUCT_VERSION` of the header gives them.
    #[test]
    fn versions_are_the_headers() {
        assert_eq!(struct_version(size_of::<nvml::nvmlMemory_v2_t>(), 2), 0x0200_0028);
        assert_eq!(
            struct_version(size_of::<nvml::nvmlGpuInstanceProfileInfo_v2_t>(), 2),
            0x0200_0098
        );
        assert_eq!(
            struct_version(size_of::<nvml::nvmlComputeInstanceProfileInfo_v2_t>(), 2),
            0x0200_0088
        );
    }

    #[test]
    fn text_fits_its_buffer_or_is_refused() {
        let mut buffer = [1; 5];
        let out = Out(buffer.as_mut_ptr());
        assert_eq!(out.text(5, "four"), Ok(()));
        assert_eq!(out.text(4, "four"), Err(code::INSUFFICIENT_SIZE));
        assert_eq!(out.text(0, ""), Err(code::INSUFFICIENT_SIZE));
        assert_eq!(
            Out(std::ptr::null_mut()).text(5, "four"),
            Err(code::INVALID_ARGUMENT)
        );
        assert_eq!(buffer.map(i8::cast_unsigned), *b"four\0");
        assert_eq!(chars::<4>("abcdef").map(i8::cast_unsigned), *b"abc\0");
    }

    #[test]
    fn a_list_that_does_not_fit_says_how_long_it_is() {
        let (mut room, mut array) = (2, [0; 3]);
        let count_out = Out(&raw mut room);
        let array_out = Out(array.as_mut_ptr());
        assert_eq!(
            list(&count_out, &array_out, vec![7, 8, 9]),
            Err(code::INSUFFICIENT_SIZE)
        );
        assert_eq!(count_out.get(), Ok(3));
        assert_eq!(list(&count_out, &array_out, vec![7, 8, 9]), Ok(()));
        assert_eq!(array, [7, 8, 9]);
    }

    #[test]
    fn a_panic_ends_at_the_boundary() {
        assert_eq!(contain(|| unreachable!("for a test")), code::UNKNOWN);
    }

    #[test]
    fn a_reason_in_nvmls_words_is_that_code() {
        assert_eq!(code_of("GPU is lost"), code::GPU_IS_LOST);
        assert_eq!(code_of("something else"), code::UNKNOWN);
        assert!(ERRORS.iter().all(|(code, text)| error_string(*code) == *text));
    }
}
