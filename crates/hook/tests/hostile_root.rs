//! Roots that were made to lead a hook astray: whatever is in them, nothing outside is seen or changed.
#![expect(
    clippy::unwrap_used,
    reason = "a test that can't prepare its files has failed"
)]

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use pitcrew_hook::root::{ContainerRoot, Last, clean};
use pitcrew_hook::{chmod, cuda_compat, symlinks};
use proptest::prelude::*;

/// A root beside a directory that must stay as it is.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("root")).unwrap();
        fs::create_dir_all(dir.path().join("canary/etc")).unwrap();
        fs::write(dir.path().join("canary/file"), "untouched").unwrap();
        Self { dir }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn canary(&self) -> PathBuf {
        self.dir.path().join("canary")
    }

    /// Everything in the canary with its mode and content.
    fn seen(&self) -> Vec<String> {
        let mut seen = Vec::new();
        let mut ahead = vec![self.canary()];
        while let Some(path) = ahead.pop() {
            let meta = fs::symlink_metadata(&path).unwrap();
            let text = meta.is_file().then(|| fs::read_to_string(&path).unwrap());
            seen.push(format!("{} {:o} {text:?}", path.display(), meta.mode()));
            if meta.is_dir() {
                ahead.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
        seen.sort();
        seen
    }

    /// All links that a hook could fall for, each to the canary.
    fn trap(&self) {
        let (root, canary) = (self.root(), self.canary());
        fs::create_dir_all(root.join("usr/local/cuda")).unwrap();
        fs::create_dir_all(root.join("usr/share")).unwrap();
        // What the absolute links mean is inside of the root.
        fs::create_dir_all(root.join(canary.strip_prefix("/").unwrap()).join("etc")).unwrap();
        symlink(&canary, root.join("usr/lib")).unwrap();
        symlink("../../../../../../../../../../..", root.join("up")).unwrap();
        symlink(canary.join("etc"), root.join("etc")).unwrap();
        symlink("/proc/self/root", root.join("magic")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        symlink(canary.join("file"), root.join("usr/share/file")).unwrap();
    }
}

fn roots(path: &Path) -> [ContainerRoot; 2] {
    [
        ContainerRoot::open(path).unwrap(),
        ContainerRoot::open_walking(path).unwrap(),
    ]
}

#[test]
fn links_are_made_inside_whatever_the_root_has_at_their_path() {
    for index in 0..2 {
        let place = Place::new();
        place.trap();
        let before = place.seen();
        let root = &roots(&place.root())[index];
        let canary = place.canary();
        let out = format!("x::{}/file", canary.display());
        let links = [
            "a::/usr/lib/made",
            "a::/up/up/top",
            "a::../../../etc/deep/er/x",
            out.as_str(),
            "b::/usr/share/file",
        ];
        for _ in 0..2 {
            symlinks::create(root, links.into_iter()).unwrap();
        }
        assert_eq!(place.seen(), before);
        let inside = place.root().join(canary.strip_prefix("/").unwrap());
        assert_eq!(fs::read_link(inside.join("made")).unwrap(), Path::new("a"));
        assert_eq!(
            fs::read_link(inside.join("etc/deep/er/x")).unwrap(),
            Path::new("a")
        );
        assert_eq!(fs::read_link(place.root().join("top")).unwrap(), Path::new("a"));
        assert_eq!(
            fs::read_link(place.root().join("usr/share/file")).unwrap(),
            Path::new("b")
        );
        assert_eq!(
            fs::metadata(inside.join("etc/deep"))
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o755
        );
        let left = fs::read_dir(place.root())
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        assert!(
            left.into_iter()
                .all(|name| !name.to_string_lossy().starts_with(".pitcrew"))
        );
        assert!(symlinks::create(root, ["a::/loop/x"].into_iter()).is_err());
        assert!(
            symlinks::create(root, ["a::/usr/share"].into_iter()).is_err(),
            "a directory is not replaced"
        );
        assert!(symlinks::create(root, ["no separator"].into_iter()).is_err());
    }
}

#[test]
fn files_are_replaced_not_followed_and_modes_are_set_inside() {
    for index in 0..2 {
        let place = Place::new();
        place.trap();
        let before = place.seen();
        let root = &roots(&place.root())[index];
        root.replace(Path::new("/usr/share/file"), b"ours").unwrap();
        assert_eq!(
            fs::read_to_string(place.root().join("usr/share/file")).unwrap(),
            "ours"
        );
        root.replace(Path::new("/etc/ld.so.conf.d/x.conf"), b"x").unwrap();
        chmod::set(
            root,
            "700",
            ["/usr/share", "/usr/lib", "/loop", "/up/up/usr", "/none"].into_iter(),
        )
        .unwrap();
        assert_eq!(
            fs::metadata(place.root().join("usr"))
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o700
        );
        assert!(chmod::set(root, "4755", ["/usr"].into_iter()).is_err());
        assert_eq!(place.seen(), before);
    }
}

#[test]
fn what_is_no_regular_file_is_not_opened_and_what_is_large_not_read() {
    let place = Place::new();
    let path = place.root();
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        path.join("fifo"),
        rustix::fs::Mode::from_raw_mode(0o644),
    )
    .unwrap();
    fs::write(path.join("large"), vec![0; 4097]).unwrap();
    for number in 0..100 {
        fs::write(path.join(format!("many{number}")), "").unwrap();
    }
    for root in roots(&path) {
        assert!(
            root.read(Path::new("/fifo"), 10)
                .unwrap_err()
                .to_string()
                .contains("not a regular file")
        );
        assert!(
            root.read(Path::new("/large"), 4096)
                .unwrap_err()
                .to_string()
                .contains("too large")
        );
        assert_eq!(root.read(Path::new("/none"), 10).unwrap(), None);
        assert!(
            root.list(Path::new("/"), 50)
                .unwrap_err()
                .to_string()
                .contains("too large")
        );
        assert!(root.list(Path::new("/"), 500).unwrap().len() > 100);
    }
    assert!(
        ContainerRoot::open(Path::new("/"))
            .unwrap_err()
            .to_string()
            .contains("is the host's")
    );
}

#[test]
fn deep_and_long_paths_end() {
    let place = Place::new();
    let mut chain = place.root();
    for _ in 0..30 {
        chain.push("d");
        fs::create_dir(&chain).unwrap();
    }
    // Each link doubles the way: 2^40 steps for who counts only links.
    for number in 1..40 {
        let before = number - 1;
        symlink(
            format!("l{before}/../l{before}"),
            place.root().join(format!("l{number}")),
        )
        .unwrap();
    }
    symlink("d", place.root().join("l0")).unwrap();
    for root in roots(&place.root()) {
        assert!(!root.has(Path::new("/l39")));
        assert!(root.has(Path::new("/l2/../l3")));
        assert!(!root.has(Path::new(&"/d".repeat(3000))));
    }
}

#[test]
fn a_root_whose_links_are_swapped_meanwhile_leads_nowhere_else() {
    let place = Place::new();
    let (root, canary) = (place.root(), place.canary());
    let before = place.seen();
    fs::create_dir_all(root.join("a/etc")).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // `a` is by turns a directory and a link out.
            symlink(&canary, root.join("out")).unwrap();
            let exchange = rustix::fs::RenameFlags::EXCHANGE;
            while !done.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(
                    rustix::fs::CWD,
                    root.join("a"),
                    rustix::fs::CWD,
                    root.join("out"),
                    exchange,
                )
                .unwrap();
            }
        });
        for opened in roots(&root) {
            for number in 0..3000 {
                let link = format!("x{}::/a/etc/made{}", number, number % 7);
                // It may fail, as things come and go; it may not go out.
                let _ = symlinks::create(&opened, [link.as_str()].into_iter());
                let _ = opened.replace(Path::new("/a/etc/conf"), number.to_string().as_bytes());
                let _ = chmod::set(&opened, "711", ["/a/etc"].into_iter());
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(place.seen(), before);
}

#[test]
fn compatibility_libraries_are_put_first_and_only_where_they_are_of_use() {
    let place = Place::new();
    let dir = place.root().join("usr/local/cuda-13/compat");
    fs::create_dir_all(&dir).unwrap();
    symlink("cuda-13", place.root().join("usr/local/cuda")).unwrap();
    fs::write(dir.join("libcuda.so.590.44.01"), "no ELF").unwrap();
    symlink("libcuda.so.590.44.01", dir.join("libcuda.so.1")).unwrap();
    let root = ContainerRoot::open(&place.root()).unwrap();
    let conf = place.root().join("etc/ld.so.conf.d/00-compat-pitcrew.conf");
    let enable = |driver| {
        let host = cuda_compat::Host { driver, cuda: None };
        cuda_compat::enable(&root, Path::new(cuda_compat::DEFAULT_DIR), host).unwrap()
    };
    for driver in [None, Some("590.10.1"), Some("nonsense")] {
        assert_eq!(enable(driver), None);
        assert!(!conf.exists());
    }
    for _ in 0..2 {
        assert_eq!(enable(Some("580.95.05")), None);
        assert_eq!(fs::read_to_string(&conf).unwrap(), "/usr/local/cuda/compat\n");
    }
    fs::write(dir.join("libcuda.so.580.1"), "").unwrap();
    assert!(enable(Some("570.1")).unwrap().contains("several"));
}

/// A link's target or a path, made of few names so that they meet.
fn path() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => prop::sample::select(vec!["a", "b", "c", "d"]).prop_map(str::to_owned),
        2 => Just("..".to_owned()),
        1 => Just(".".to_owned()),
    ];
    (
        any::<bool>(),
        prop::collection::vec(part, 1..6),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(absolute, parts, slash)| {
            format!(
                "{}{}{}",
                if absolute { "/" } else { "" },
                parts.join("/"),
                if slash { "/" } else { "" }
            )
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// The walk of old kernels finds what the kernel's own resolution in a root finds, or fails where that fails.
    #[test]
    fn both_resolvers_agree(entries in prop::collection::vec((path(), 0_u8..3, path()), 0..14), asked in prop::collection::vec(path(), 1..12)) {
        let place = Place::new();
        for (at, kind, target) in entries {
            let at = place.root().join(clean(Path::new(&at)).strip_prefix("/").unwrap());
            let made = match kind {
                0 => fs::create_dir(&at),
                1 => fs::write(&at, ""),
                _ => symlink(target, &at),
            };
            // Where something is there already, or nothing above it.
            let _ = made;
        }
        let [kernel, walk] = roots(&place.root());
        let identity = |fd: std::os::fd::OwnedFd| rustix::fs::fstat(fd.as_fd()).map(|stat| (stat.st_dev, stat.st_ino)).unwrap();
        for path in asked {
            for last in [Last::Followed, Last::Itself] {
                let by_kernel = kernel.resolve(Path::new(&path), last).map(identity).map_err(|error| error.to_string());
                let by_walk = walk.resolve(Path::new(&path), last).map(identity).map_err(|error| error.to_string());
                prop_assert_eq!(by_kernel, by_walk, "{} {:?}", path, last);
            }
        }
    }

    #[test]
    fn a_clean_path_is_absolute_and_has_no_dots(text in "[a./]{0,12}") {
        let cleaned = clean(Path::new(&text));
        prop_assert!(cleaned.is_absolute());
        prop_assert!(cleaned.iter().all(|part| part != "." && part != ".."));
    }
}
