//! Finding, loading and letting go of the driver's library.
#![expect(unsafe_code, reason = "a library of C is loaded here")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use libloading::os::unix::{Library as Handle, RTLD_LOCAL, RTLD_NOW};
use nvml_wrapper_sys::bindings::NvmlLib;
use pitcrew_core::ports::GpuError;

use crate::call;
use crate::code::Code;

/// What the driver's library is called; the rest of its name is a version.
pub const SONAME: &str = "libnvidia-ml.so.1";

/// A file as it was: another one under the same path differs in some of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibraryIdentity {
    /// The file, links resolved.
    pub path: PathBuf,
    /// Device that it is on.
    pub device: u64,
    /// Inode there.
    pub inode: u64,
    /// Size in bytes.
    pub size: u64,
    /// Last change of its content.
    pub modified: Option<SystemTime>,
}

impl LibraryIdentity {
    /// The file that `path` leads to now.
    pub fn of(path: &Path) -> std::io::Result<Self> {
        let path = path.canonicalize()?;
        let metadata = fs::metadata(&path)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: metadata.modified().ok(),
            path,
        })
    }
}

/// NVML, loaded and initialised. Dropping it gives back every descriptor and mapping.
#[derive(Debug)]
pub(crate) struct Library {
    pub(crate) functions: Functions,
    /// The path that the library is found by again, and the file that it led to when it was loaded.
    found: Option<(PathBuf, LibraryIdentity)>,
    /// NVML counts who initialised it, and others in this process may have.
    initialised: bool,
}

/// The functions of the library; it is loaded for as long as this is there.
pub(crate) struct Functions(NvmlLib);

impl std::fmt::Debug for Functions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Functions")
    }
}

impl std::ops::Deref for Functions {
    type Target = NvmlLib;
    fn deref(&self) -> &NvmlLib {
        &self.0
    }
}

impl Library {
    /// Loads `file`, or else what the loader finds, or else what is in one of the directories; and initialises it.
    pub(crate) fn load(file: Option<&Path>, search: &[PathBuf]) -> Result<Self, GpuError> {
        let mut library = match file {
            Some(file) => Self::open(file)?,
            None => Self::find(search)?,
        };
        call::run(&library.functions.nvmlInit_v2).map_err(|code| GpuError::DriverFailed(code.of_init()))?;
        library.initialised = true;
        Ok(library)
    }

    fn find(search: &[PathBuf]) -> Result<Self, GpuError> {
        let by_loader = match Self::open(Path::new(SONAME)) {
            Ok(library) => return Ok(library),
            Err(error) => error,
        };
        let mut first = None;
        for file in search.iter().map(|directory| directory.join(SONAME)) {
            if fs::symlink_metadata(&file).is_err() {
                continue;
            }
            match Self::open(&file) {
                Ok(library) => return Ok(library),
                Err(error) => {
                    first.get_or_insert(error);
                }
            }
        }
        Err(first.unwrap_or_else(|| match by_loader {
            // What the loader says of a file that is nowhere would sound as if it were a name of ours.
            GpuError::NoDriver(text) if text.contains("No such file") => GpuError::NoDriver(format!(
                "`{SONAME}` is neither where the loader looks nor in the driver's usual directories"
            )),
            error => error,
        }))
    }

    /// Loads a library and makes sure that it is NVML.
    fn open(file: &Path) -> Result<Self, GpuError> {
        let functions =
            load_functions(file.as_os_str()).map_err(|error| GpuError::NoDriver(error.to_string()))?;
        let Ok(init) = functions.nvmlInit_v2 else {
            return Err(GpuError::NoDriver(format!(
                "`{}` is not NVIDIA's management library: it has no `nvmlInit_v2`",
                file.display()
            )));
        };
        let found = found_again(file, init as usize).and_then(|path| {
            let identity = LibraryIdentity::of(&path).ok()?;
            Some((path, identity))
        });
        Ok(Self {
            functions,
            found,
            initialised: false,
        })
    }

    /// The file that was loaded; `None` where it was gone already, or can't be told.
    pub(crate) fn identity(&self) -> Option<&LibraryIdentity> {
        self.found.as_ref().map(|(_, identity)| identity)
    }

    /// False when the path that the library was found by leads to another file now, or to none. Where that path was
    /// not known, nothing says that it was replaced: to load it anew at every look would find out no more.
    pub(crate) fn is_current(&self) -> bool {
        let same = |(path, then): &(PathBuf, LibraryIdentity)| {
            LibraryIdentity::of(path).is_ok_and(|now| now == *then)
        };
        self.found.as_ref().is_none_or(same)
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        if self.initialised {
            // Whatever it answers, there is nothing more to do than to unload it.
            let _: Result<(), Code> = call::run(&self.functions.nvmlShutdown);
        }
    }
}

fn load_functions(file: &OsStr) -> Result<Functions, libloading::Error> {
    // SAFETY: loading runs the library's initialisers. That can't be made safe: it is the driver's library, or the
    // one that the user named, and it is trusted as the driver is. All symbols are resolved now, so that a library
    // which lacks something is refused here and doesn't end the program later.
    let handle = unsafe { Handle::open(Some(file), RTLD_NOW | RTLD_LOCAL)? };
    // SAFETY: looks up symbols by the names that their types in the header have; a library that has the name and
    // not the type would not be NVML, which is not told by more than its name in any other program either.
    unsafe { NvmlLib::from_library(handle).map(Functions) }
}

/// The path to look at for a change: the file given, or beside the one that was loaded what the loader looked for.
fn found_again(file: &Path, address: usize) -> Option<PathBuf> {
    if file.components().count() > 1 {
        return std::path::absolute(file).ok();
    }
    let maps = fs::read("/proc/self/maps").ok()?;
    let loaded = mapped_file(&maps, address)?;
    let link = loaded.with_file_name(file);
    // The link is what an update points elsewhere; without it the file itself has to do.
    let same = link.canonicalize().ok() == loaded.canonicalize().ok();
    Some(if same { link } else { loaded })
}

/// The exported function that begins at this address, by the dynamic linker.
pub(crate) fn name_of(function: usize) -> Option<String> {
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: any address may be asked for; what is there is not touched. The struct is all pointers, for which zeros
    // are a value, and outlives the call.
    let info = unsafe {
        if libc::dladdr(std::ptr::without_provenance(function), info.as_mut_ptr()) == 0 {
            return None;
        }
        info.assume_init()
    };
    if info.dli_sname.is_null() {
        return None;
    }
    // SAFETY: a name in the table of symbols of a library that is loaded: the call that it is the name of has not
    // returned.
    let name = unsafe { std::ffi::CStr::from_ptr(info.dli_sname) };
    Some(name.to_string_lossy().into_owned())
}

/// The file that is mapped at this address, from `/proc/PID/maps`. Names of files are bytes, whatever they mean.
fn mapped_file(maps: &[u8], address: usize) -> Option<PathBuf> {
    let number = |digits: &[u8]| usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
    let is_space = |byte: &u8| *byte == b' ';
    maps.split(|byte| *byte == b'\n').find_map(|line| {
        let range = &line[..line.iter().position(is_space)?];
        let dash = range.iter().position(|byte| *byte == b'-')?;
        let (from, to) = (number(&range[..dash])?, number(&range[dash + 1..])?);
        let path = &line[line.iter().position(|byte| *byte == b'/')?..];
        let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
        (from..to)
            .contains(&address)
            .then(|| PathBuf::from(OsStr::from_bytes(path)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_behind_an_address_is_found_in_the_maps() {
        let maps = b"55d0-55d8 r-xp 00000000 08:01 17 /usr/bin/x y\n7f00-7f10 rw-p 00000000 00:00 0 \n\
                    7f10-7f20 r-xp 00001000 08:01 18 /lib/libnvidia-ml.so.580.159.04 (deleted)\nnonsense\n- -\n\
                    8f10-8f20 r-xp 00001000 08:01 19 /opt/\xfc/libnvidia-ml.so.1\n";
        assert_eq!(mapped_file(maps, 0x55d7), Some("/usr/bin/x y".into()));
        assert_eq!(
            mapped_file(maps, 0x7f10),
            Some("/lib/libnvidia-ml.so.580.159.04".into())
        );
        assert_eq!(mapped_file(maps, 0x7f00), None);
        assert_eq!(mapped_file(maps, 0x1), None);
        assert_eq!(
            mapped_file(maps, 0x8f11),
            Some(OsStr::from_bytes(b"/opt/\xfc/libnvidia-ml.so.1").into()),
            "not every name is UTF-8"
        );
    }

    #[test]
    fn a_replaced_file_is_not_the_same_one() {
        let dir = tempfile::tempdir().unwrap();
        let (link, first, second) = (
            dir.path().join(SONAME),
            dir.path().join("1"),
            dir.path().join("2"),
        );
        fs::write(&first, "old").unwrap();
        std::os::unix::fs::symlink(&first, &link).unwrap();
        let before = LibraryIdentity::of(&link).unwrap();
        assert_eq!(before.path, first.canonicalize().unwrap());
        assert_eq!(LibraryIdentity::of(&link).unwrap(), before);
        fs::write(&second, "new").unwrap();
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&second, &link).unwrap();
        assert_ne!(LibraryIdentity::of(&link).unwrap(), before);
        fs::remove_file(&second).unwrap();
        assert!(LibraryIdentity::of(&link).is_err());
    }

    #[test]
    fn what_is_not_there_or_no_library_is_no_driver() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Library::load(Some(&dir.path().join("none.so")), &[]).unwrap_err();
        assert!(
            matches!(&missing, GpuError::NoDriver(text) if text.contains("none.so")),
            "{missing}"
        );
        let text = dir.path().join("text.so");
        fs::write(&text, "no library").unwrap();
        let text = Library::load(Some(&text), &[]).unwrap_err();
        assert!(
            matches!(&text, GpuError::NoDriver(text) if text.contains("text.so") && !text.contains('\n')),
            "{text}"
        );
    }
}
