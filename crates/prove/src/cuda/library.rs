//! Finding and loading `libcuda.so.1`, and its functions.
#![expect(unsafe_code, reason = "a library of C is loaded here")]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::ptr;

use libloading::os::unix::{Library as Handle, RTLD_LOCAL, RTLD_NOW};
use pitcrew_core::inventory::CudaVersion;

use super::setup::{SetupError, Surroundings};

/// What the driver's library is called. `libcuda.so` without the number is a stub where CUDA's toolkit is installed.
pub const SONAME: &str = "libcuda.so.1";

/// Where the library is when the loader doesn't find it.
pub const SEARCH: [&str; 8] = [
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/local/nvidia/lib64",
    "/usr/lib/wsl/lib",
    "/run/nvidia/driver/usr/lib64",
    "/run/nvidia/driver/usr/lib/x86_64-linux-gnu",
    "/run/nvidia/driver/usr/lib/aarch64-linux-gnu",
];

/// An opaque handle of the driver's: context, module, function, stream, event.
pub(super) type Raw = *mut c_void;
/// Number of a device.
pub(super) type CuDevice = c_int;

/// Oldest CUDA version of a driver that the oldest kernels run on.
const OLDEST: CudaVersion = CudaVersion { major: 8, minor: 0 };

/// Makes the table of functions, each under its symbol's name.
macro_rules! functions {
    ($($(#[$optional:ident])? $field:ident = $symbol:literal ($($argument:ty),*);)*) => {
        /// The functions of the library.
        pub(super) struct Functions {
            $(pub(super) $field: functions!(@type $($optional)? unsafe extern "C" fn($($argument),*) -> c_int),)*
        }

        impl Functions {
            /// All functions of a loaded library; in the error the symbol that it lacks.
            fn of(handle: &Handle) -> Result<Self, &'static str> {
                // SAFETY: the symbols have these types in every driver's library: `cuda.h`.
                unsafe {
                    Ok(Self {
                        $($field: functions!(@get $($optional)? handle, $symbol),)*
                    })
                }
            }
        }
    };
    (@type optional $ty:ty) => { Option<$ty> };
    (@type $ty:ty) => { $ty };
    (@get optional $handle:ident, $symbol:literal) => {
        $handle.get($symbol.as_bytes()).ok().map(|symbol| *symbol)
    };
    (@get $handle:ident, $symbol:literal) => {
        *$handle.get($symbol.as_bytes()).map_err(|_| $symbol)?
    };
}

functions! {
    init = "cuInit" (c_uint);
    driver_get_version = "cuDriverGetVersion" (*mut c_int);
    get_error_name = "cuGetErrorName" (c_int, *mut *const c_char);
    device_get_count = "cuDeviceGetCount" (*mut c_int);
    device_get = "cuDeviceGet" (*mut CuDevice, c_int);
    device_get_name = "cuDeviceGetName" (*mut c_char, c_int, CuDevice);
    #[optional] device_get_uuid = "cuDeviceGetUuid" (*mut [u8; 16], CuDevice);
    #[optional] device_get_uuid_v2 = "cuDeviceGetUuid_v2" (*mut [u8; 16], CuDevice);
    device_get_pci_bus_id = "cuDeviceGetPCIBusId" (*mut c_char, c_int, CuDevice);
    device_total_mem = "cuDeviceTotalMem_v2" (*mut usize, CuDevice);
    device_get_attribute = "cuDeviceGetAttribute" (*mut c_int, c_int, CuDevice);
    primary_ctx_retain = "cuDevicePrimaryCtxRetain" (*mut Raw, CuDevice);
    primary_ctx_release = "cuDevicePrimaryCtxRelease" (CuDevice);
    ctx_set_current = "cuCtxSetCurrent" (Raw);
    module_load_data = "cuModuleLoadDataEx" (*mut Raw, *const c_void, c_uint, *mut c_int, *mut *mut c_void);
    module_get_function = "cuModuleGetFunction" (*mut Raw, Raw, *const c_char);
    func_set_attribute = "cuFuncSetAttribute" (Raw, c_int, c_int);
    occupancy = "cuOccupancyMaxActiveBlocksPerMultiprocessor" (*mut c_int, Raw, c_int, usize);
    launch_kernel = "cuLaunchKernel" (
        Raw, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Raw, *mut *mut c_void, *mut *mut c_void
    );
    mem_alloc = "cuMemAlloc_v2" (*mut u64, usize);
    mem_free = "cuMemFree_v2" (u64);
    mem_host_alloc = "cuMemHostAlloc" (*mut *mut c_void, usize, c_uint);
    mem_free_host = "cuMemFreeHost" (*mut c_void);
    mem_get_info = "cuMemGetInfo_v2" (*mut usize, *mut usize);
    copy_to_device = "cuMemcpyHtoDAsync_v2" (u64, *const c_void, usize, Raw);
    copy_to_host = "cuMemcpyDtoHAsync_v2" (*mut c_void, u64, usize, Raw);
    copy_to_peer = "cuMemcpyPeerAsync" (u64, Raw, u64, Raw, usize, Raw);
    set_words = "cuMemsetD32Async" (u64, c_uint, usize, Raw);
    stream_create = "cuStreamCreate" (*mut Raw, c_uint);
    stream_destroy = "cuStreamDestroy_v2" (Raw);
    stream_wait_event = "cuStreamWaitEvent" (Raw, Raw, c_uint);
    event_create = "cuEventCreate" (*mut Raw, c_uint);
    event_destroy = "cuEventDestroy_v2" (Raw);
    event_record = "cuEventRecord" (Raw, Raw);
    event_query = "cuEventQuery" (Raw);
    event_elapsed = "cuEventElapsedTime" (*mut f32, Raw, Raw);
    device_can_access_peer = "cuDeviceCanAccessPeer" (*mut c_int, CuDevice, CuDevice);
    ctx_enable_peer_access = "cuCtxEnablePeerAccess" (Raw, c_uint);
    #[optional] tensor_map = "cuTensorMapEncodeTiled" (
        *mut c_void, c_int, c_uint, *mut c_void, *const u64, *const u64, *const c_uint, *const c_uint, c_int, c_int,
        c_int, c_int
    );
}

/// The driver, loaded and initialised. It stays loaded until the process ends: the driver has threads of its own.
pub struct Library {
    pub(super) functions: Functions,
    /// CUDA version of the driver.
    pub(super) version: CudaVersion,
    around: Surroundings,
    devices: c_int,
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Library")
            .field("version", &self.version)
            .field("devices", &self.devices)
            .finish_non_exhaustive()
    }
}

impl Library {
    /// Loads and initialises the driver: `file`, or what the loader finds, or what lies in one of [`SEARCH`].
    ///
    /// `dev` is where device files are, `/dev`.
    pub fn open(file: Option<&Path>, dev: &Path) -> Result<Self, SetupError> {
        let mut around = look_around(dev);
        let (path, handle) = load(file).map_err(|why| SetupError::of_load(why, &around))?;
        let functions = Functions::of(&handle).map_err(|symbol| SetupError::NotCuda {
            path: path.display().to_string(),
            symbol,
        })?;
        around.compat = mapped_compat();
        // Its threads may run until the end of the process.
        std::mem::forget(handle);
        let mut library = Self {
            functions,
            version: OLDEST,
            around,
            devices: 0,
        };
        library.start()?;
        Ok(library)
    }

    fn start(&mut self) -> Result<(), SetupError> {
        // SAFETY: no flags are defined.
        self.setup("cuInit", unsafe { (self.functions.init)(0) })?;
        let mut version = 0;
        // SAFETY: one integer is written.
        self.setup("cuDriverGetVersion", unsafe {
            (self.functions.driver_get_version)(&raw mut version)
        })?;
        self.version = CudaVersion::from_driver(u32::try_from(version).unwrap_or_default());
        if self.version < OLDEST {
            return Err(SetupError::DriverTooOld(format!("of CUDA {}", self.version)));
        }
        let mut devices = 0;
        // SAFETY: one integer is written.
        self.setup("cuDeviceGetCount", unsafe {
            (self.functions.device_get_count)(&raw mut devices)
        })?;
        if devices == 0 {
            return self.setup("cuDeviceGetCount", 100);
        }
        self.devices = devices;
        Ok(())
    }

    /// CUDA version of the driver.
    pub const fn version(&self) -> CudaVersion {
        self.version
    }

    /// How many devices this process may use.
    pub fn devices(&self) -> u32 {
        u32::try_from(self.devices).unwrap_or_default()
    }

    /// A code of a call at the start, explained.
    pub(super) fn setup(&self, call: &'static str, code: c_int) -> Result<(), SetupError> {
        if code == 0 {
            return Ok(());
        }
        Err(SetupError::of_code(
            call,
            code,
            self.code_name(code),
            &self.around,
        ))
    }

    /// The driver's name of a code, such as `CUDA_ERROR_NO_DEVICE`.
    pub(super) fn code_name(&self, code: c_int) -> String {
        let mut name: *const c_char = ptr::null();
        // SAFETY: a pointer to a text that lives as long as the library is written, or null.
        let told = unsafe { (self.functions.get_error_name)(code, &raw mut name) };
        if told != 0 || name.is_null() {
            return format!("code {code}");
        }
        // SAFETY: not null, and ends with a zero.
        unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
    }
}

/// The file that was loaded, or why none was.
fn load(file: Option<&Path>) -> Result<(PathBuf, Handle), String> {
    let open = |path: &Path| {
        // SAFETY: the driver's library may be loaded at any time; its initialisers only set up its own state.
        unsafe { Handle::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map_err(|error| error.to_string())
    };
    if let Some(file) = file {
        return open(file).map(|handle| (file.to_owned(), handle));
    }
    let mut why = match open(Path::new(SONAME)) {
        Ok(handle) => return Ok((SONAME.into(), handle)),
        Err(error) => error,
    };
    for path in SEARCH.iter().map(|directory| Path::new(directory).join(SONAME)) {
        if fs::symlink_metadata(&path).is_err() {
            continue;
        }
        match open(&path) {
            Ok(handle) => return Ok((path, handle)),
            // More telling than that the loader's own directories have none.
            Err(error) => why = error,
        }
    }
    Err(why)
}

fn look_around(dev: &Path) -> Surroundings {
    let files = fs::read_dir(dev)
        .map(|entries| {
            entries
                .flatten()
                .filter(|entry| {
                    entry
                        .file_name()
                        .to_str()
                        .and_then(|name| name.strip_prefix("nvidia"))
                        .is_some_and(|rest| {
                            !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit())
                        })
                })
                .count()
        })
        .unwrap_or_default();
    Surroundings {
        // WSL has one device for all.
        device_files: files + usize::from(dev.join("dxg").exists()),
        control_file: dev.join("nvidiactl").exists(),
        compat: None,
    }
}

/// The compatibility library, if it is what this process loaded.
fn mapped_compat() -> Option<String> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines()
        .filter_map(|line| line.find('/').and_then(|start| line.get(start..)))
        .find(|path| path.contains("/compat/") && path.contains("libcuda.so"))
        .map(ToOwned::to_owned)
}
