//! The shapes of NVML's calls, each made safe once.
//!
//! What makes a call sound is the same for all calls of one shape: the handles are those of this library and it is
//! still loaded (a [`Handle`] borrows it), the pointers point to what the prototype says (the types of bindgen), and
//! whatever the library writes there is a value ([`Plain`]).
#![expect(unsafe_code, reason = "C is called here")]

use std::ffi::{CStr, c_char};
use std::os::raw::c_uint;

use nvml_wrapper_sys::bindings as sys;

use crate::code::{Answer, Code};
use crate::progress;

/// A function of the library, or why it isn't there.
pub(crate) type Symbol<F> = Result<F, libloading::Error>;

/// A C function.
macro_rules! c_fn {
    ($($argument:ty),* $(,)?) => { unsafe extern "C" fn($($argument),*) -> sys::nvmlReturn_t };
}

/// Types that C may fill in.
///
/// # Safety
/// Every pattern of bits is a value of the type, all zeros among them.
pub(crate) unsafe trait Plain: Copy {
    /// All bits zero.
    fn zeroed() -> Self {
        // SAFETY: all zeros are a value, by the contract of the trait.
        unsafe { std::mem::zeroed() }
    }
}

macro_rules! plain {
    ($($ty:ty),* $(,)?) => { $(
        // SAFETY: integers, raw pointers, and structs and arrays of them.
        unsafe impl Plain for $ty {}
    )* };
}

plain! {
    u32, i32, u64,
    sys::nvmlDevice_t, sys::nvmlEventSet_t, sys::nvmlGpmSample_t,
    sys::nvmlGpuInstance_t, sys::nvmlComputeInstance_t,
    sys::nvmlMemory_t, sys::nvmlMemory_v2_t, sys::nvmlBAR1Memory_t, sys::nvmlUtilization_t, sys::nvmlPciInfo_t,
    sys::nvmlProcessInfo_v1_t, sys::nvmlProcessInfo_v2_t,
    sys::nvmlDeviceAttributes_t, sys::nvmlGpuInstancePlacement_t,
    sys::nvmlGpuInstanceProfileInfo_t, sys::nvmlGpuInstanceProfileInfo_v2_t, sys::nvmlGpuInstanceInfo_t,
    sys::nvmlComputeInstanceProfileInfo_t, sys::nvmlComputeInstanceInfo_t,
    sys::nvmlEventData_t, sys::nvmlGpmSupport_t,
    sys::nvmlGpuFabricInfo_t, sys::nvmlGpuFabricInfoV_t,
}

// SAFETY: integers and a union of numbers.
unsafe impl Plain for sys::nvmlFieldValue_t {}
// SAFETY: integers, raw pointers and floating point numbers.
unsafe impl Plain for sys::nvmlGpmMetricsGet_t {}

/// An argument by value: a number, or a handle that borrows the library which gave it.
pub(crate) trait Handle: Copy {
    /// As C sees it.
    type Raw;
    fn raw(self) -> Self::Raw;
}

impl Handle for u32 {
    type Raw = Self;
    fn raw(self) -> Self {
        self
    }
}

/// The function, or the code for one that this driver doesn't have. Noted as entered: it is called next.
fn found<F: Copy>(symbol: &Symbol<F>) -> Answer<F> {
    let function = symbol.as_ref().map_err(|_| Code::FUNCTION_NOT_FOUND)?;
    const { assert!(size_of::<F>() == size_of::<usize>()) }
    // SAFETY: a pointer to a function, of the size of an address, which is looked at and never called through.
    progress::enter(unsafe { std::mem::transmute_copy::<F, usize>(function) });
    Ok(*function)
}

/// Takes in what a call has returned.
fn returned(code: u32) -> Answer<()> {
    progress::returned();
    Code::check(code)
}

/// `f(out)`.
pub(crate) fn get<T: Plain>(symbol: &Symbol<c_fn!(*mut T)>) -> Answer<T> {
    let mut value = T::zeroed();
    // SAFETY: see the module; `value` outlives the call.
    returned(unsafe { found(symbol)?(&raw mut value) })?;
    Ok(value)
}

/// `f(a, out)`.
pub(crate) fn get_of<A: Handle, T: Plain>(symbol: &Symbol<c_fn!(A::Raw, *mut T)>, a: A) -> Answer<T> {
    get_into(symbol, a, T::zeroed())
}

/// `f(a, in_out)`: for structs that say their version.
pub(crate) fn get_into<A: Handle, T: Plain>(
    symbol: &Symbol<c_fn!(A::Raw, *mut T)>,
    a: A,
    mut value: T,
) -> Answer<T> {
    // SAFETY: see the module; `value` outlives the call.
    returned(unsafe { found(symbol)?(a.raw(), &raw mut value) })?;
    Ok(value)
}

/// `f(a, b, out)`.
pub(crate) fn get_of_two<A: Handle, B: Handle, T: Plain>(
    symbol: &Symbol<c_fn!(A::Raw, B::Raw, *mut T)>,
    a: A,
    b: B,
) -> Answer<T> {
    get_of_two_into(symbol, a, b, T::zeroed())
}

/// `f(a, b, in_out)`.
pub(crate) fn get_of_two_into<A: Handle, B: Handle, T: Plain>(
    symbol: &Symbol<c_fn!(A::Raw, B::Raw, *mut T)>,
    a: A,
    b: B,
    mut value: T,
) -> Answer<T> {
    // SAFETY: see the module; `value` outlives the call.
    returned(unsafe { found(symbol)?(a.raw(), b.raw(), &raw mut value) })?;
    Ok(value)
}

/// `f(a, b, c, out)`.
pub(crate) fn get_of_three<A: Handle, B: Handle, C: Handle, T: Plain>(
    symbol: &Symbol<c_fn!(A::Raw, B::Raw, C::Raw, *mut T)>,
    a: A,
    b: B,
    c: C,
) -> Answer<T> {
    let mut value = T::zeroed();
    // SAFETY: see the module; `value` outlives the call.
    returned(unsafe { found(symbol)?(a.raw(), b.raw(), c.raw(), &raw mut value) })?;
    Ok(value)
}

/// `f(a, b, const *in, out)`.
pub(crate) fn get_with<A: Handle, B: Handle, I: Plain, T: Plain>(
    symbol: &Symbol<c_fn!(A::Raw, B::Raw, *const I, *mut T)>,
    a: A,
    b: B,
    input: &I,
) -> Answer<T> {
    let mut value = T::zeroed();
    // SAFETY: see the module; `input` and `value` outlive the call.
    returned(unsafe { found(symbol)?(a.raw(), b.raw(), &raw const *input, &raw mut value) })?;
    Ok(value)
}

/// `f(a, out, out)`.
pub(crate) fn get_pair<A: Handle, T: Plain, U: Plain>(
    symbol: &Symbol<c_fn!(A::Raw, *mut T, *mut U)>,
    a: A,
) -> Answer<(T, U)> {
    let (mut first, mut second) = (T::zeroed(), U::zeroed());
    // SAFETY: see the module; both outlive the call.
    returned(unsafe { found(symbol)?(a.raw(), &raw mut first, &raw mut second) })?;
    Ok((first, second))
}

/// `f(a, out, out, out, out)`.
pub(crate) fn get_four<A: Handle>(
    symbol: &Symbol<c_fn!(A::Raw, *mut c_uint, *mut c_uint, *mut c_uint, *mut c_uint)>,
    a: A,
) -> Answer<[u32; 4]> {
    let [mut first, mut second, mut third, mut fourth] = [0; 4];
    // SAFETY: see the module; all four outlive the call.
    let code = unsafe {
        found(symbol)?(
            a.raw(),
            &raw mut first,
            &raw mut second,
            &raw mut third,
            &raw mut fourth,
        )
    };
    returned(code)?;
    Ok([first, second, third, fourth])
}

/// `f(a, in_out, b)`.
pub(crate) fn get_then<A: Handle, T: Plain, B: Handle>(
    symbol: &Symbol<c_fn!(A::Raw, *mut T, B::Raw)>,
    a: A,
    mut value: T,
    b: B,
) -> Answer<T> {
    // SAFETY: see the module; `value` outlives the call.
    returned(unsafe { found(symbol)?(a.raw(), &raw mut value, b.raw()) })?;
    Ok(value)
}

/// `f(a)`.
pub(crate) fn act<A: Handle>(symbol: &Symbol<c_fn!(A::Raw)>, a: A) -> Answer<()> {
    // SAFETY: see the module.
    returned(unsafe { found(symbol)?(a.raw()) })
}

/// `f(a, b)`.
pub(crate) fn act_on_two<A: Handle, B: Handle>(
    symbol: &Symbol<c_fn!(A::Raw, B::Raw)>,
    a: A,
    b: B,
) -> Answer<()> {
    // SAFETY: see the module.
    returned(unsafe { found(symbol)?(a.raw(), b.raw()) })
}

/// `f(a, b, c)`.
pub(crate) fn act_on_three<A: Handle, B: Handle, C: Handle>(
    symbol: &Symbol<c_fn!(A::Raw, B::Raw, C::Raw)>,
    a: A,
    b: B,
    c: C,
) -> Answer<()> {
    // SAFETY: see the module.
    returned(unsafe { found(symbol)?(a.raw(), b.raw(), c.raw()) })
}

/// `f()`.
pub(crate) fn run(symbol: &Symbol<c_fn!()>) -> Answer<()> {
    // SAFETY: see the module.
    returned(unsafe { found(symbol)?() })
}

/// `f(in_out)`: for a struct that holds what is asked for and what is answered.
pub(crate) fn exchange<T: Plain>(symbol: &Symbol<c_fn!(*mut T)>, value: &mut T) -> Answer<()> {
    // SAFETY: see the module; pointers inside of `value` are the caller's, who holds what they point to.
    returned(unsafe { found(symbol)?(&raw mut *value) })
}

/// `f(text, length)`.
pub(crate) fn text<const N: usize>(symbol: &Symbol<c_fn!(*mut c_char, c_uint)>) -> Answer<String> {
    let mut buffer = [0; N];
    // SAFETY: see the module; the buffer is as long as said.
    returned(unsafe { found(symbol)?(buffer.as_mut_ptr(), length(N)) })?;
    Ok(from_c(&buffer))
}

/// `f(a, text, length)`.
pub(crate) fn text_of<const N: usize, A: Handle>(
    symbol: &Symbol<c_fn!(A::Raw, *mut c_char, c_uint)>,
    a: A,
) -> Answer<String> {
    let mut buffer = [0; N];
    // SAFETY: see the module; the buffer is as long as said.
    returned(unsafe { found(symbol)?(a.raw(), buffer.as_mut_ptr(), length(N)) })?;
    Ok(from_c(&buffer))
}

/// `f(a, text)`, for text that is no longer than the header says.
///
/// The function isn't told the length: `N` must be that of the header.
pub(crate) fn text_of_fixed<const N: usize, A: Handle>(
    symbol: &Symbol<c_fn!(A::Raw, *mut c_char)>,
    a: A,
) -> Answer<String> {
    let mut buffer = [0; N];
    // SAFETY: see the module; the buffer is as long as the header demands, by the contract of `N`.
    returned(unsafe { found(symbol)?(a.raw(), buffer.as_mut_ptr()) })?;
    Ok(from_c(&buffer))
}

/// `f(text, out)`.
pub(crate) fn get_by_text<T: Plain>(symbol: &Symbol<c_fn!(*const c_char, *mut T)>, text: &CStr) -> Answer<T> {
    let mut value = T::zeroed();
    // SAFETY: see the module; the text ends in zero, and both outlive the call.
    returned(unsafe { found(symbol)?(text.as_ptr(), &raw mut value) })?;
    Ok(value)
}

/// `f(a, count, list)`: as long as it must be.
pub(crate) fn list<A: Handle, T: Plain>(
    symbol: &Symbol<c_fn!(A::Raw, *mut c_uint, *mut T)>,
    a: A,
) -> Answer<Vec<T>> {
    let function = found(symbol)?;
    grow(|count, list: &mut [T]| {
        progress::enter(function as usize);
        // SAFETY: see the module; the list has room for `count`.
        unsafe { function(a.raw(), count, list.as_mut_ptr()) }
    })
}

/// `f(a, b, count, list)`: as long as it must be.
pub(crate) fn list_by_kind<A: Handle, B: Handle, T: Plain>(
    symbol: &Symbol<c_fn!(A::Raw, B::Raw, *mut c_uint, *mut T)>,
    a: A,
    b: B,
) -> Answer<Vec<T>> {
    let function = found(symbol)?;
    grow(|count, list: &mut [T]| {
        progress::enter(function as usize);
        // SAFETY: see the module; the list has room for `count`.
        unsafe { function(a.raw(), b.raw(), count, list.as_mut_ptr()) }
    })
}

/// `f(a, b, list, count)`: as long as it must be.
pub(crate) fn list_of_two<A: Handle, B: Handle, T: Plain>(
    symbol: &Symbol<c_fn!(A::Raw, B::Raw, *mut T, *mut c_uint)>,
    a: A,
    b: B,
) -> Answer<Vec<T>> {
    let function = found(symbol)?;
    grow(|count, list: &mut [T]| {
        progress::enter(function as usize);
        // SAFETY: see the module; the list has room for `count`.
        unsafe { function(a.raw(), b.raw(), list.as_mut_ptr(), count) }
    })
}

/// `f(a, count, values)` for values that say what is wanted.
pub(crate) fn fill<A: Handle, T: Plain>(
    symbol: &Symbol<c_fn!(A::Raw, std::os::raw::c_int, *mut T)>,
    a: A,
    values: &mut [T],
) -> Answer<()> {
    let count = i32::try_from(values.len()).map_err(|_| Code::INVALID_ARGUMENT)?;
    // SAFETY: see the module; `count` is the length.
    returned(unsafe { found(symbol)?(a.raw(), count, values.as_mut_ptr()) })
}

/// The longest list that is made; Linux has at most 4,194,304 processes.
const MOST: usize = 1 << 23;

/// Calls with a longer and longer list until it suffices.
fn grow<T: Plain>(mut call: impl FnMut(&mut c_uint, &mut [T]) -> u32) -> Answer<Vec<T>> {
    // More than any GPU has of anything but processes, whose number NVML then says.
    let mut room = 128;
    // A number that no kernel has processes for is no reason to ask for memory.
    while room <= MOST {
        let mut list = vec![T::zeroed(); room];
        let mut count = length(room);
        match returned(call(&mut count, &mut list)) {
            Ok(()) => {
                list.truncate(usize::try_from(count).unwrap_or(room));
                return Ok(list);
            }
            // Some more, as processes may start in between.
            Err(Code::INSUFFICIENT_SIZE) => room = usize::try_from(count).unwrap_or(MOST).max(room * 2) + 32,
            Err(code) => return Err(code),
        }
    }
    Err(Code::INSUFFICIENT_SIZE)
}

fn length(length: usize) -> c_uint {
    c_uint::try_from(length).unwrap_or(c_uint::MAX)
}

/// The text up to the first zero; whatever isn't UTF-8 is replaced.
pub(crate) fn from_c(buffer: &[c_char]) -> String {
    let bytes: Vec<u8> = buffer
        .iter()
        .map(|byte| byte.to_ne_bytes()[0])
        .take_while(|byte| *byte != 0)
        .collect();
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

/// `version` of a struct that says it: its size and a number.
pub(crate) fn version_of<T>(number: u32) -> u32 {
    length(size_of::<T>()) | number << 24
}

#[cfg(test)]
mod tests {
    use super::*;

    fn c(text: &str, room: usize) -> Vec<c_char> {
        let mut buffer: Vec<c_char> = text.bytes().map(|byte| c_char::from_ne_bytes([byte])).collect();
        buffer.resize(room, 0);
        buffer
    }

    #[test]
    fn a_text_ends_at_its_zero_or_at_the_end_of_the_buffer() {
        assert_eq!(from_c(&c("NVIDIA H100", 96)), "NVIDIA H100");
        assert_eq!(from_c(&c("full", 4)), "full");
        assert_eq!(from_c(&c("é", 8)), "é");
        assert_eq!(from_c(&c("", 4)), "");
    }

    #[test]
    fn versions_are_those_of_the_header() {
        // `nvmlMemory_v2` and `nvmlGpuInstanceProfileInfo_v2` of nvml.h.
        assert_eq!(version_of::<sys::nvmlMemory_v2_t>(2), 0x0200_0028);
        assert_eq!(version_of::<sys::nvmlGpuInstanceProfileInfo_v2_t>(2), 0x0200_0098);
    }

    #[test]
    fn a_list_grows_until_it_suffices_and_a_liar_is_given_up() {
        let many = grow(|count, list: &mut [u32]| {
            let room = *count;
            *count = 1000;
            if room < 1000 {
                return Code::INSUFFICIENT_SIZE.0;
            }
            list[999] = 7;
            0
        });
        let many = many.unwrap();
        assert!(many.len() == 1000 && many[999] == 7);
        let more_than_there_is = grow(|count, _: &mut [u32]| {
            *count = 5000;
            0
        });
        assert_eq!(more_than_there_is.unwrap().len(), 128);
        assert_eq!(
            grow(|_, _: &mut [u32]| Code::INSUFFICIENT_SIZE.0).unwrap_err(),
            Code::INSUFFICIENT_SIZE
        );
        let mut asked = 0;
        let boundless = grow(|count, _: &mut [u32]| {
            asked += 1;
            *count = u32::MAX;
            Code::INSUFFICIENT_SIZE.0
        });
        assert_eq!((boundless, asked), (Err(Code::INSUFFICIENT_SIZE), 1));
    }
}
