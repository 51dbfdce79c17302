//! A file of procfs, covered in a mount namespace of the test's own: needs root.

use std::fs;
use std::path::Path;

use pitcrew_hook::device_params::cover;
use pitcrew_hook::root::ContainerRoot;
use rustix::mount::MountPropagationFlags;
use rustix::thread::UnshareFlags;

#[test]
#[ignore = "needs root: cargo xtask test --ring 3"]
fn a_file_of_procfs_is_covered_read_only_and_leaves_no_other_file() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_owned();
    let hosts = fs::read_to_string("/proc/version").unwrap();
    let inside = std::thread::spawn(move || {
        #[expect(unsafe_code, reason = "rustix marks unshare so")]
        // SAFETY: file descriptors stay shared; only this thread's view of mounts changes, and it ends with the test.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS | UnshareFlags::NEWNS) }.unwrap();
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).unwrap();
        fs::create_dir(root.join("proc")).unwrap();
        fs::write(root.join("plain"), "image").unwrap();
        rustix::mount::mount_bind_recursive("/proc", root.join("proc")).unwrap();
        let opened = ContainerRoot::open(&root).unwrap();
        for _ in 0..2 {
            cover(&opened, Path::new("/proc/version"), "covered\n").unwrap();
            assert_eq!(
                fs::read_to_string(root.join("proc/version")).unwrap(),
                "covered\n"
            );
        }
        let written = fs::write(root.join("proc/version"), "x").unwrap_err();
        assert_eq!(
            written.raw_os_error(),
            Some(rustix::io::Errno::ROFS.raw_os_error())
        );
        cover(&opened, Path::new("/proc/not-there"), "x").unwrap();
        assert!(
            cover(&opened, Path::new("/plain"), "x")
                .unwrap_err()
                .to_string()
                .contains("not on procfs")
        );
        let mut names: Vec<_> = fs::read_dir(&root)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["plain", "proc"]);
    });
    inside.join().unwrap();
    assert_eq!(fs::read_to_string("/proc/version").unwrap(), hosts);
}
