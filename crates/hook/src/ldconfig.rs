//! The host's `ldconfig`, run in a container that may be hostile.
//!
//! It runs as a sealed copy in memory, which nothing in the container can change, in a mount namespace of its own whose
//! root is the container's: there is no path from it to the host. It has no privilege but over files, no environment,
//! and limits on time, memory and file size. A container is refused where it does not end in time.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

use crate::elf;
use crate::root::{ContainerRoot, kernel};

/// How long it may take; a large image on a cold disk takes a second or two.
const DEADLINE: Duration = Duration::from_secs(20);
const LARGEST: u64 = 32 << 20;
/// Of its remarks, so much is kept.
const MOST_REMARKS: usize = 4096;

/// Why it did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum LdconfigError {
    /// The host's program.
    #[error("the host's {} could not be read: {source}", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A script, or a program that would load libraries: the container's.
    #[error("the host's {} is not a static program, so it can't run in a container; name another by --ldconfig-path", .0.display())]
    NotStatic(PathBuf),
    /// It could not be started.
    #[error("ldconfig could not be started in the container: {stage}: {source} (kernel {kernel})")]
    Start {
        /// What failed.
        stage: &'static str,
        /// Why.
        source: io::Error,
        /// The kernel's release.
        kernel: String,
    },
    /// It takes too long, because of what it finds in the container.
    #[error("ldconfig did not end within {} s in the container, so it was ended", DEADLINE.as_secs())]
    TooLong,
    /// It ended with an error.
    #[error("ldconfig failed in the container ({status}): {remarks}")]
    Failed {
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it said.
        remarks: String,
    },
}

/// What is done between fork and exec, in this order; the number of the one that failed comes back with the reason.
const STAGES: [&str; 8] = [
    "fork",
    "new mount namespace",
    "private mounts",
    "new root directory",
    "leave the host's root directory",
    "limits",
    "drop privileges",
    "exec",
];
/// `errno` has 12 bits in the kernel's interface.
const STAGE: i32 = 1 << 12;

/// Runs it with `/etc/ld.so.conf` and `/etc/ld.so.cache` of the container; returns what it remarked.
pub(crate) fn run(root: &ContainerRoot, program: &Path) -> Result<Vec<String>, LdconfigError> {
    let program = sealed(program)?;
    let failed = |source: io::Error| {
        let raw = source.raw_os_error().unwrap_or_default();
        let stage = usize::try_from(raw / STAGE)
            .ok()
            .and_then(|stage| STAGES.get(stage));
        LdconfigError::Start {
            stage: stage.copied().unwrap_or(STAGES[0]),
            source: io::Error::from_raw_os_error(raw % STAGE),
            kernel: kernel(),
        }
    };
    let mut child = start(root, program).map_err(failed)?;
    let Some(mut stderr) = child.stderr.take() else {
        return Ok(Vec::new());
    };
    let _ = rustix::io::ioctl_fionbio(&stderr, true);
    let end = Instant::now() + DEADLINE;
    let mut said = Vec::new();
    let mut pause = Duration::from_micros(200);
    let status = loop {
        drain(&mut stderr, &mut said);
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < end => {}
            Ok(None) | Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(LdconfigError::TooLong);
            }
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    };
    drain(&mut stderr, &mut said);
    let remarks = printable(&said);
    if status.success() {
        return Ok(remarks.lines().map(str::to_owned).collect());
    }
    Err(LdconfigError::Failed {
        status,
        remarks: remarks.replace('\n', "; "),
    })
}

/// Reads what there is, so that a program with much to say does not wait; keeps the first part.
fn drain(stderr: &mut ChildStderr, said: &mut Vec<u8>) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stderr.read(&mut buffer) {
        let room = MOST_REMARKS.saturating_sub(said.len());
        said.extend_from_slice(&buffer[..count.min(room)]);
    }
}

/// Text from the container, without what a terminal or a log would obey.
fn printable(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    text.trim()
        .chars()
        .map(|c| if c.is_control() && c != '\n' { '?' } else { c })
        .collect()
}

/// A copy in memory that can't be changed any more.
fn sealed(path: &Path) -> Result<OwnedFd, LdconfigError> {
    let failed = |source: io::Error| LdconfigError::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(failed)?;
    if !elf::is_static_program(&file) {
        return Err(LdconfigError::NotStatic(path.to_owned()));
    }
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = rustix::fs::memfd_create(c"ldconfig", flags).map_err(|errno| failed(errno.into()))?;
    let mut copy = File::from(copy);
    io::copy(&mut file.by_ref().take(LARGEST), &mut copy).map_err(failed)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&copy, seals).map_err(|errno| failed(errno.into()))?;
    Ok(copy.into())
}

#[expect(
    unsafe_code,
    reason = "what stands between fork and exec can't be said otherwise"
)]
fn start(root: &ContainerRoot, program: OwnedFd) -> io::Result<Child> {
    let root = root.as_fd().try_clone_to_owned()?;
    // Never executed: the closure executes the sealed copy, or fails.
    let mut command = Command::new("/sbin/ldconfig");
    command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let inside = move || {
        let (stage, errno) = match confine(root.as_fd()) {
            Ok(()) => (7, exec(program.as_fd())),
            Err(failed) => failed,
        };
        Err(io::Error::from_raw_os_error(stage * STAGE + errno.raw_os_error()))
    };
    // SAFETY: it runs in the child of fork, and does nothing but system calls: no lock of the parent's is taken.
    unsafe { command.pre_exec(inside) };
    command.spawn()
}

/// Goes where nothing of the host is left, and gives up what is not needed there.
fn confine(root: BorrowedFd<'_>) -> Result<(), (i32, Errno)> {
    // A working directory goes along into the new namespace; a descriptor would stay in the old one.
    rustix::process::fchdir(root).map_err(|errno| (3, errno))?;
    #[expect(
        unsafe_code,
        reason = "rustix marks unshare so, for flags that this does not use"
    )]
    // SAFETY: only descriptors' tables shared with other threads would matter, and those stay as they are.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.map_err(|errno| (1, errno))?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change(c"/", private).map_err(|errno| (2, errno))?;
    enter().map_err(|errno| (3, errno))?;
    rustix::process::chdir(c"/").map_err(|errno| (4, errno))?;
    let identity = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
    let meant = rustix::fs::fstat(root)
        .map(identity)
        .map_err(|errno| (4, errno))?;
    if rustix::fs::stat(c"/").map(identity) != Ok(meant) {
        return Err((4, Errno::XDEV));
    }
    limit().map_err(|errno| (5, errno))?;
    drop_privileges().map_err(|errno| (6, errno))
}

/// Makes the working directory the only root.
fn enter() -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let old = rustix::fs::open(c"/", flags, Mode::empty())?;
    match rustix::process::pivot_root(c".", c".") {
        Ok(()) => {}
        Err(Errno::INVAL | Errno::BUSY) => {
            // It is no mount of its own (a runtime's is), or the host's root is a ramfs, which can't be put aside.
            if let Ok(mounted) = mount_itself() {
                rustix::process::fchdir(&mounted)?;
            }
            if rustix::process::pivot_root(c".", c".").is_err() {
                rustix::mount::mount_move(c".", c"/")?;
                return rustix::process::chroot(c".");
            }
        }
        Err(errno) => return Err(errno),
    }
    // Both lie on `/` now; the host's goes.
    rustix::process::fchdir(&old)?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH)
}

/// Mounts the working directory on itself, without its path (kernel 5.2).
fn mount_itself() -> Result<OwnedFd, Errno> {
    let copy = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_RECURSIVE;
    let flags = copy | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(rustix::fs::CWD, c".", flags)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&tree, c"", rustix::fs::CWD, c".", flags)?;
    Ok(tree)
}

fn limit() -> Result<(), Errno> {
    let limits = [
        (Resource::Cpu, DEADLINE.as_secs()),
        (Resource::As, 1 << 30),
        (Resource::Fsize, 64 << 20),
        (Resource::Core, 0),
        (Resource::Nofile, 256),
    ];
    for (resource, most) in limits {
        let old = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let most = Some(most.min(old));
        rustix::process::setrlimit(
            resource,
            Rlimit {
                current: most,
                maximum: most,
            },
        )?;
    }
    Ok(())
}

/// Leaves root the rights over files, whoever owns them, and nothing else.
fn drop_privileges() -> Result<(), Errno> {
    let kept = CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::DAC_READ_SEARCH
        | CapabilitySet::FOWNER;
    for number in 0..63_u32 {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if !kept.contains(one) {
            match rustix::thread::remove_capability_from_bounding_set(one) {
                Ok(()) => {}
                // The kernel knows no more; or it was not ours to give away, and `capset` below settles it.
                Err(Errno::INVAL | Errno::PERM) => break,
                Err(errno) => return Err(errno),
            }
        }
    }
    rustix::thread::set_no_new_privs(true)?;
    let sets = rustix::thread::capabilities(None)?;
    let sets = CapabilitySets {
        effective: sets.permitted & kept,
        permitted: sets.permitted & kept,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets)
}

/// Executes an open program with no environment; returns only where that fails.
#[expect(unsafe_code, reason = "execution by descriptor has no safe wrapper")]
fn exec(program: BorrowedFd<'_>) -> Errno {
    let arguments = [
        c"ldconfig".as_ptr(),
        c"-f".as_ptr(),
        c"/etc/ld.so.conf".as_ptr(),
        c"-C".as_ptr(),
        c"/etc/ld.so.cache".as_ptr(),
        std::ptr::null(),
    ];
    let environment = [std::ptr::null::<libc::c_char>()];
    // SAFETY: the call takes two numbers and an enumeration's flag, and only marks descriptors. It fails before Linux
    // 5.11, where what the runtime left open stays so.
    unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    // SAFETY: both lists end with null and, like the strings in them, live until the call returns.
    unsafe {
        libc::execveat(
            program.as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr().cast(),
            environment.as_ptr().cast(),
            libc::AT_EMPTY_PATH,
        )
    };
    Errno::from_raw_os_error(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}
