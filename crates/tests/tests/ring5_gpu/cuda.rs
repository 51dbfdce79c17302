//! As much of CUDA's driver API as it takes to fail.
#![expect(unsafe_code, reason = "C is called here")]

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::ptr::{null, null_mut};

use libloading::{Library, Symbol};

/// A kernel that stores to an address where nothing is.
const PTX: &[u8] = b".version 6.4
.target sm_70
.address_size 64
.visible .entry store_to_nowhere()
{
    .reg .b64 %where;
    .reg .b32 %what;
    mov.u64 %where, 0x1000;
    mov.u32 %what, 1;
    st.global.u32 [%where], %what;
    ret;
}
\0";
/// `CUDA_ERROR_ILLEGAL_ADDRESS`.
const ILLEGAL_ADDRESS: c_int = 700;

/// Runs the kernel on the first GPU that CUDA sees, which must fail for its address.
///
/// # Panics
/// Where it did not, or CUDA could not be used.
pub(crate) fn store_to_nowhere() {
    let ok = |what: &str, code: c_int| assert_eq!(code, 0, "{what}");
    // SAFETY: the driver's own library; its initialisers are trusted as the driver is.
    let cuda = unsafe { Library::new("libcuda.so.1") }.expect("the driver has CUDA");
    // SAFETY: each symbol has the prototype of cuda.h; handles go only where cuda.h says, in the order that it asks
    // for, and all pointers are to locals that live to the end of the call.
    unsafe {
        let init: Symbol<'_, unsafe extern "C" fn(c_uint) -> c_int> = cuda.get(b"cuInit\0").expect("cuInit");
        let device_get: Symbol<'_, unsafe extern "C" fn(*mut c_int, c_int) -> c_int> =
            cuda.get(b"cuDeviceGet\0").expect("cuDeviceGet");
        let retain: Symbol<'_, unsafe extern "C" fn(*mut *mut c_void, c_int) -> c_int> = cuda
            .get(b"cuDevicePrimaryCtxRetain\0")
            .expect("cuDevicePrimaryCtxRetain");
        let set_current: Symbol<'_, unsafe extern "C" fn(*mut c_void) -> c_int> =
            cuda.get(b"cuCtxSetCurrent\0").expect("cuCtxSetCurrent");
        let load: Symbol<'_, unsafe extern "C" fn(*mut *mut c_void, *const c_void) -> c_int> =
            cuda.get(b"cuModuleLoadData\0").expect("cuModuleLoadData");
        let function: Symbol<
            '_,
            unsafe extern "C" fn(*mut *mut c_void, *mut c_void, *const c_char) -> c_int,
        > = cuda.get(b"cuModuleGetFunction\0").expect("cuModuleGetFunction");
        let launch: Symbol<'_, Launch> = cuda.get(b"cuLaunchKernel\0").expect("cuLaunchKernel");
        let synchronize: Symbol<'_, unsafe extern "C" fn() -> c_int> =
            cuda.get(b"cuCtxSynchronize\0").expect("cuCtxSynchronize");

        let (mut device, mut context, mut module, mut kernel) = (0, null_mut(), null_mut(), null_mut());
        ok("cuInit", init(0));
        ok("cuDeviceGet", device_get(&raw mut device, 0));
        ok("cuDevicePrimaryCtxRetain", retain(&raw mut context, device));
        ok("cuCtxSetCurrent", set_current(context));
        ok("cuModuleLoadData", load(&raw mut module, PTX.as_ptr().cast()));
        ok(
            "cuModuleGetFunction",
            function(&raw mut kernel, module, c"store_to_nowhere".as_ptr()),
        );
        ok(
            "cuLaunchKernel",
            launch(kernel, 1, 1, 1, 1, 1, 1, 0, null_mut(), null(), null()),
        );
        assert_eq!(synchronize(), ILLEGAL_ADDRESS, "cuCtxSynchronize");
    }
    // CUDA has threads of its own now, which may not lose their code.
    std::mem::forget(cuda);
}

/// `cuLaunchKernel`.
type Launch = unsafe extern "C" fn(
    *mut c_void,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    *mut c_void,
    *const *mut c_void,
    *const *mut c_void,
) -> c_int;
