//! Every PTX of the pack through the assemblers of several CUDA releases, each the same as in a driver of its time, for
//! every GPU that it is for. They come from `PyPI`, pinned by hash in `tools/ptxas-*.txt`, into the cache directory.
#![expect(clippy::unwrap_used, reason = "what is made for a test must be there")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use pitcrew_prove::device::Format;
use pitcrew_prove::kernels::{MODULES, Module, Target, names, unpack};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Releases, oldest first, with the newest PTX version that each knows.
const RELEASES: [(&str, (u32, u32)); 5] = [
    ("11.8", (7, 8)),
    ("12.0", (8, 0)),
    ("12.9", (8, 8)),
    ("13.0", (9, 0)),
    ("13.5", (9, 5)),
];

/// PTX versions in order, from the oldest that is of use (CUDA 8.0) to the newest of the pack.
const VERSIONS: [(u32, u32); 25] = [
    (5, 0),
    (6, 0),
    (6, 1),
    (6, 2),
    (6, 3),
    (6, 4),
    (6, 5),
    (7, 0),
    (7, 1),
    (7, 2),
    (7, 3),
    (7, 4),
    (7, 5),
    (7, 6),
    (7, 7),
    (7, 8),
    (8, 0),
    (8, 1),
    (8, 2),
    (8, 3),
    (8, 4),
    (8, 5),
    (8, 6),
    (8, 7),
    (8, 8),
];

fn cache() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache"),
        PathBuf::from,
    );
    base.join("pitcrew/tools")
}

/// The assembler of a release, fetched once.
fn ptxas(release: &str) -> PathBuf {
    tool(&format!("ptxas-{release}"), "ptxas")
}

/// A program of a pinned package, fetched once.
fn tool(name: &str, program: &str) -> PathBuf {
    static FETCH: Mutex<()> = Mutex::new(());
    let _one_at_a_time = FETCH.lock().unwrap();
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools");
    let requirements = tools.join(format!("{name}.txt"));
    let pinned = fs::read_to_string(&requirements).unwrap();
    let dir = cache().join(name);
    let stamp = dir.join("requirements.txt");
    if !fs::read_to_string(&stamp).is_ok_and(|fetched| fetched == pinned) {
        let _ = fs::remove_dir_all(&dir);
        let fetched = Command::new("python3")
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "--require-hashes",
                "--no-compile",
            ])
            .args([
                "--root-user-action=ignore",
                "--disable-pip-version-check",
                "--target",
            ])
            .arg(&dir)
            .arg("-r")
            .arg(&requirements)
            .status()
            .unwrap();
        assert!(fetched.success(), "could not fetch {name}");
    }
    let found = ["cuda_nvcc", "cu13"]
        .map(|part| dir.join("nvidia").join(part).join("bin").join(program))
        .into_iter()
        .find(|path| path.exists())
        .unwrap();
    if !stamp.exists() {
        // Wheels don't keep the bit. The stamp comes last: a half-fetched directory is of no use.
        assert!(
            Command::new("chmod")
                .arg("+x")
                .arg(&found)
                .status()
                .unwrap()
                .success()
        );
        fs::write(&stamp, pinned).unwrap();
    }
    found
}

/// The architectures that an assembler knows, e.g. `90` and `90a`.
fn architectures(ptxas: &Path) -> BTreeSet<String> {
    let help = Command::new(ptxas).arg("--help").output().unwrap();
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    help.split('\'')
        .filter_map(|word| word.strip_prefix("sm_"))
        .map(ToOwned::to_owned)
        .collect()
}

/// What ptxas said where it refused; `None` where it took the PTX.
fn refused(ptxas: &Path, architecture: &str, level: &str, source: &Path, to: &Path) -> Option<String> {
    let mut command = Command::new(ptxas);
    command.arg(level).arg(format!("-arch={architecture}"));
    let done = command.arg(source).arg("-o").arg(to).output().unwrap();
    (!done.status.success()).then(|| String::from_utf8_lossy(&done.stderr).into_owned())
}

fn ptx_of(module: &Module) -> String {
    String::from_utf8(unpack(&format!("ptx/{}.ptx", module.name)).unwrap()).unwrap()
}

/// Does the rule of `.target` let this PTX be compiled for an architecture?
fn legal(target: Target, architecture: &str) -> bool {
    match target {
        Target::Exactly(major, minor) => architecture == format!("{major}{minor}a"),
        Target::Family(major, minor) => {
            let number = architecture.trim_end_matches(['a', 'f']);
            let of = |number: u32| (number / 10, number % 10);
            let (its_major, its_minor) = number.parse().map_or((0, 0), of);
            // What was `sm_101` is of another family, and has been `sm_110` since CUDA 13.
            number.len() < architecture.len() && its_major == major && its_minor >= minor && number != "101"
        }
        // That with `a` or `f` behind it is the same GPU.
        Target::From(major, minor) => architecture
            .parse::<u32>()
            .is_ok_and(|number| number >= major * 10 + minor),
    }
}

struct Job {
    release: &'static str,
    ptxas: PathBuf,
    module: &'static str,
    source: PathBuf,
    architecture: String,
}

/// Does all jobs with as many workers as there are cores; returns what was refused.
fn assemble_all(jobs: Vec<Job>, dir: &Path) -> Vec<String> {
    let wrong = Mutex::new(Vec::new());
    let queue = Mutex::new(jobs);
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for worker in 0..workers {
            let (queue, wrong) = (&queue, &wrong);
            let to = dir.join(format!("{worker}.cubin"));
            scope.spawn(move || {
                loop {
                    let Some(job) = queue.lock().unwrap().pop() else {
                        break;
                    };
                    // Whether it is legal doesn't depend on how hard it is optimized.
                    if let Some(why) = refused(&job.ptxas, &job.architecture, "-O1", &job.source, &to) {
                        let line = format!("{} {} {}: {why}", job.release, job.module, job.architecture);
                        wrong.lock().unwrap().push(line);
                    }
                }
            });
        }
    });
    wrong.into_inner().unwrap()
}

#[test]
#[ignore = "fetches 200 MB of assemblers: cargo xtask test --ring 3"]
fn every_ptx_is_assembled_by_each_release_for_every_gpu_that_it_is_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut jobs = Vec::new();
    for (release, newest) in RELEASES {
        let ptxas = ptxas(release);
        let known = architectures(&ptxas);
        assert!(known.len() > 10, "{release}: {known:?}");
        for module in MODULES.iter().filter(|module| module.ptx <= newest) {
            let source = dir.path().join(format!("{}.ptx", module.name));
            fs::write(&source, ptx_of(module)).unwrap();
            jobs.extend(
                known
                    .iter()
                    .filter(|name| legal(module.target, name))
                    .map(|name| Job {
                        release,
                        ptxas: ptxas.clone(),
                        module: module.name,
                        source: source.clone(),
                        architecture: format!("sm_{name}"),
                    }),
            );
        }
    }
    let modules: BTreeSet<&str> = jobs.iter().map(|job| job.module).collect();
    assert_eq!(modules.len(), MODULES.len());
    let count = jobs.len();
    let wrong = assemble_all(jobs, dir.path());
    assert!(
        wrong.is_empty(),
        "{} of {count} were refused:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(count > 300, "{count}");
}

#[test]
#[ignore = "fetches 200 MB of assemblers: cargo xtask test --ring 3"]
fn no_ptx_could_be_of_a_lower_version() {
    let dir = tempfile::tempdir().unwrap();
    let ptxas = ptxas("12.9");
    for module in MODULES {
        let ptx = ptx_of(&module);
        let header = format!(".version {}.{}\n", module.ptx.0, module.ptx.1);
        assert!(ptx.contains(&header), "{}: not {header}", module.name);
        let place = VERSIONS
            .iter()
            .position(|&version| version == module.ptx)
            .unwrap();
        let Some((major, minor)) = place.checked_sub(1).map(|place| VERSIONS[place]) else {
            continue;
        };
        let source = dir.path().join("lower.ptx");
        fs::write(
            &source,
            ptx.replace(&header, &format!(".version {major}.{minor}\n")),
        )
        .unwrap();
        let architecture = match module.target {
            Target::From(major, minor) => format!("sm_{major}{minor}"),
            Target::Exactly(major, minor) => format!("sm_{major}{minor}a"),
            Target::Family(major, minor) => format!("sm_{major}{minor}f"),
        };
        let to = dir.path().join("lower.cubin");
        assert!(
            refused(&ptxas, &architecture, "-O0", &source, &to).is_some(),
            "{} would do with PTX {major}.{minor}",
            module.name
        );
    }
}

fn manifest() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/manifest.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn digest(data: &[u8]) -> String {
    Sha256::digest(data).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[test]
#[ignore = "fetches 200 MB of assemblers: cargo xtask test --ring 3"]
fn the_machine_code_is_what_the_pinned_assemblers_make_of_the_ptx() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = manifest();
    let mut count = 0;
    for name in names().unwrap() {
        let Some(of) = name
            .strip_prefix("cubin/")
            .and_then(|name| name.strip_suffix(".cubin"))
        else {
            continue;
        };
        let (module, architecture) = of.split_once('.').unwrap();
        let source = dir.path().join("in.ptx");
        fs::write(&source, unpack(&format!("ptx/{module}.ptx")).unwrap()).unwrap();
        let release = manifest["assemblers"][name].as_str().unwrap();
        // Newer assemblers write their arguments into what they make.
        let done = Command::new(ptxas(release))
            .args([
                "-O3",
                "-v",
                &format!("-arch={architecture}"),
                "in.ptx",
                "-o",
                "out.cubin",
            ])
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(done.status.success(), "{name}");
        let to = dir.path().join("out.cubin");
        assert_eq!(
            digest(&fs::read(&to).unwrap()),
            digest(&unpack(name).unwrap()),
            "{name}"
        );
        count += 1;
    }
    assert!(count > 20, "{count}");
}

/// The instruction that a module is named for, as machine code has it.
fn instruction(module: &str, format: &str) -> Option<&'static str> {
    Some(match (module, format) {
        ("dp4a", "int8") => "IDP.4A.S8.S8",
        ("m16n8k8", "fp16") => "HMMA.1688.F32",
        ("m16n8k8", "int8") => "IMMA.8816.S8.S8",
        ("m16n8k16", "bf16") => "HMMA.16816.F32.BF16",
        ("m16n8k16", "fp16") => "HMMA.16816.F32",
        ("m16n8k16", "tf32") => "HMMA.1688.F32.TF32",
        ("m16n8k16", "int8") => "IMMA.16832.S8.S8",
        ("fp64", "fp64") => "DMMA.8",
        ("fp64_hopper", "fp64") => "DMMA.16",
        ("fp8", "fp8") => "QMMA.16832.F32.E4M3.E4M3",
        ("wgmma", "bf16" | "fp16" | "tf32") => "HGMMA.64x256x",
        ("wgmma", "fp8") => "QGMMA.64x256x32.F32.E4M3.E4M3",
        ("wgmma", "int8") => "IGMMA.64x256x32.S8.S8",
        ("tcgen05", "bf16" | "fp16" | "tf32") => "UTCHMMA",
        ("tcgen05", "fp8") => "UTCQMMA",
        ("tcgen05_int8", "int8") => "UTCIMMA",
        _ => return None,
    })
}

/// What multiplies matrices in each entry point of a disassembled file, or four bytes at once.
fn multipliers(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    let mut entry = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix(".text.") {
            entry = Some(name.trim_end_matches(':').to_owned());
        }
        let mut words = line.split_whitespace().skip_while(|word| {
            word.starts_with("/*") || word.ends_with("*/") || word.starts_with('@') || *word == "{"
        });
        let operation = words.next().unwrap_or_default().trim_end_matches(';');
        let stem = operation.split('.').next().unwrap_or_default();
        if stem.ends_with("MMA") || stem == "IDP" {
            let entry: &String = entry.as_ref().unwrap();
            let of: &mut BTreeSet<String> = found.entry(entry.clone()).or_default();
            of.insert(operation.to_owned());
        }
    }
    found
}

/// NVIDIA's disassembler knows no architecture before 7.5 any more: those cubins are left out.
#[test]
#[ignore = "fetches 200 MB of assemblers: cargo xtask test --ring 3"]
fn the_machine_code_multiplies_by_the_instruction_that_it_is_named_for() {
    let dir = tempfile::tempdir().unwrap();
    let nvdisasm = tool("nvdisasm-13.5", "nvdisasm");
    let queue: Vec<(String, String)> = names()
        .unwrap()
        .iter()
        .filter_map(|name| {
            let (module, architecture) = name
                .strip_prefix("cubin/")?
                .strip_suffix(".cubin")?
                .split_once(".sm_")?;
            let number: u32 = architecture.trim_end_matches('a').parse().unwrap();
            (number >= 75).then(|| ((*name).to_owned(), module.to_owned()))
        })
        .collect();
    let queue = Mutex::new(queue);
    let count = Mutex::new(0);
    thread::scope(|scope| {
        for worker in 0..thread::available_parallelism().map_or(1, usize::from) {
            let (queue, count, nvdisasm) = (&queue, &count, &nvdisasm);
            let file = dir.path().join(format!("{worker}.cubin"));
            scope.spawn(move || {
                loop {
                    let Some((name, module)) = queue.lock().unwrap().pop() else {
                        break;
                    };
                    let formats: Vec<&str> = Format::ALL.iter().map(|format| format.name()).collect();
                    if !formats
                        .iter()
                        .any(|format| instruction(&module, format).is_some())
                    {
                        continue;
                    }
                    fs::write(&file, unpack(&name).unwrap()).unwrap();
                    let done = Command::new(nvdisasm).arg("-c").arg(&file).output().unwrap();
                    assert!(done.status.success(), "{name}");
                    for (entry, found) in multipliers(&String::from_utf8_lossy(&done.stdout)) {
                        let format = entry.split('_').nth(1).unwrap();
                        let expected = instruction(&module, format);
                        let is_that = |operation: &String| {
                            expected.is_some_and(|expected| operation.starts_with(expected))
                        };
                        assert!(
                            found.iter().all(is_that),
                            "{name} {entry}: {found:?} for {expected:?}"
                        );
                        *count.lock().unwrap() += 1;
                    }
                }
            });
        }
    });
    // Two entry points of each format, three where `wgmma` has another for single CTAs.
    let wanted: usize = 2 * (4 + 2 + 4 * 4 + 2 + 1 + 2 + 2 * 4 + 1) + 3 * 5;
    assert_eq!(count.into_inner().unwrap(), wanted);
}

#[test]
fn sources_ptx_and_pack_are_those_of_the_manifest() {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let manifest = manifest();
    let files: BTreeMap<&str, &str> = manifest["files"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, digest)| (name.as_str(), digest.as_str().unwrap()))
        .collect();
    for (&name, &expected) in &files {
        // Cubins lie in the pack alone.
        let content = if name.starts_with("cubin/") {
            unpack(name).unwrap()
        } else {
            fs::read(kernels.join(name)).unwrap()
        };
        assert_eq!(digest(&content), expected, "{name}: run `kernels/build.py`");
        if name.starts_with("ptx/") {
            assert_eq!(unpack(name).unwrap(), content, "{name}");
        }
    }
    let packed: BTreeSet<&str> = names().unwrap().into_iter().collect();
    let told: BTreeSet<&str> = files.keys().copied().filter(|name| name.contains('/')).collect();
    assert_eq!(packed, told);
    for dir in [kernels.clone(), kernels.join("ptx")] {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(&kernels).unwrap().to_str().unwrap();
            let is_source = path.is_file() && name != "manifest.json";
            assert!(
                !is_source || files.contains_key(name),
                "`{name}` is not in the manifest"
            );
        }
    }
}
