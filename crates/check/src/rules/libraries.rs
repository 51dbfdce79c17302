//! The driver's libraries: there, of the kernel module's version, and only once.

use pitcrew_core::Reading;
use pitcrew_host::facts::DriverLibraries;

use super::Rule;
use super::driver::without_gpu;
use crate::node::{Node, branch};
use crate::report::{Finding, Topic, listed, question};

pub(crate) const RULES: &[Rule] = &[versions, complete, container_root];

/// Are the libraries of the module's version?
fn versions(node: &Node<'_>) -> Vec<Finding> {
    let ask = question(
        Topic::Driver,
        "driver.libraries",
        "libraries",
        "libcuda.so.1 and libnvidia-ml.so.1, the kernel module's version",
    );
    if let Err(no_gpu) = node.usable() {
        return without_gpu(ask, &no_gpu);
    }
    let driver = &node.host.driver;
    let kernel = driver.kernel_version.value();
    let Some(first) = driver.libraries.first() else {
        return vec![match kernel {
            None => ask.not_applicable("no driver is loaded"),
            Some(version) => ask
                .failure(
                    "none found",
                    format!("the kernel module is {version} and the libraries that containers need are not installed"),
                )
                .next(branch(version).map(|branch| node.advice.install_libraries(branch))),
        }];
    };
    let here = |set: &DriverLibraries| match &set.version {
        Reading::Value(version) => format!("{version} in {}", set.directory.display()),
        _ => format!("of unknown version in {}", set.directory.display()),
    };
    let sets = listed(driver.libraries.iter().map(here));
    let differing = driver
        .libraries
        .iter()
        .filter_map(|set| set.version.value())
        .any(|version| Some(version) != first.version.value());
    let finding = match (first.version.value(), kernel) {
        (Some(library), Some(kernel)) if library != kernel => {
            let why = format!(
                "the module in the kernel is {kernel}: the driver was upgraded under it, and every program fails with \
                 `Driver/library version mismatch` until a reboot"
            );
            ask.failure(sets, why)
                .next("sudo reboot".to_owned())
                .care(node.advice.before_reboot())
        }
        _ if differing => ask
            .warning(
                sets,
                "the first is used; a stale set beside it (a driver from a .run file, an old package) may be picked \
                 up by containers",
            )
            .next("ldconfig -p | grep -e libcuda.so -e libnvidia-ml.so".to_owned()),
        (None, _) => ask
            .unknown(first.version.failure().unwrap_or("their version is not in their names"))
            .minor(),
        (Some(_), None) => ask.note(sets, "the libraries are there and no module is loaded: see `kernel module`"),
        (Some(_), Some(_)) => ask.ok(here(first)),
    };
    vec![finding]
}

/// Is any of the libraries missing?
fn complete(node: &Node<'_>) -> Vec<Finding> {
    let driver = &node.host.driver;
    let Some(first) = driver.libraries.first() else {
        return Vec::new();
    };
    let missing: Vec<&str> = [
        ("libcuda.so.1", first.has_cuda),
        ("libnvidia-ml.so.1", first.has_nvml),
        ("libnvidia-ptxjitcompiler.so.1", first.has_jit),
    ]
    .into_iter()
    .filter(|(_, is_there)| !is_there)
    .map(|(name, _)| name)
    .collect();
    if missing.is_empty() {
        return Vec::new();
    }
    let directory = first.directory.display();
    let ask = question(
        Topic::Driver,
        "driver.missing-libraries",
        "missing libraries",
        directory.to_string(),
    );
    let install = driver
        .kernel_version
        .value()
        .or(first.version.value())
        .and_then(|version| branch(version))
        .map(|branch| node.advice.install_libraries(branch));
    let found = listed(&missing);
    let finding = if first.has_cuda && first.has_nvml {
        ask.warning(
            found,
            "programs that bring PTX and no code for this card fail without the just-in-time compiler",
        )
    } else {
        ask.failure(
            found,
            "containers get the host's libraries, and CUDA does not start without these",
        )
    };
    vec![finding.next(install)]
}

/// Is the driver in a container?
fn container_root(node: &Node<'_>) -> Vec<Finding> {
    let Some(root) = &node.host.driver.container_root else {
        return Vec::new();
    };
    let ask = question(
        Topic::Driver,
        "driver.container",
        "driver container",
        root.display().to_string(),
    );
    vec![ask.note(
        format!("a driver is mounted at {}", root.display()),
        "NVIDIA's operator runs the driver from a container; its libraries are those under this root",
    )]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Verdict;
    use crate::rules::one;
    use crate::sample::{self, libraries};

    fn with(sets: Vec<DriverLibraries>) -> Finding {
        let host = sample::host().with(|host| host.driver.libraries = sets);
        one(&host.build(), "driver.libraries")
    }

    #[test]
    fn libraries_of_another_version_than_the_module_need_a_reboot() {
        let finding = with(vec![libraries("/usr/lib64", "580.173.02")]);
        assert_eq!(finding.verdict, Verdict::Failure);
        assert_eq!(finding.found, "580.173.02 in /usr/lib64");
        assert_eq!(finding.next.as_deref(), Some("sudo reboot"));
    }

    #[test]
    fn a_second_set_of_libraries_is_a_warning_only_where_it_differs() {
        let first = || libraries("/usr/lib64", "580.159.04");
        let finding = with(vec![first(), libraries("/usr/local/lib", "550.54.15")]);
        assert_eq!(finding.verdict, Verdict::Warning);
        assert_eq!(
            finding.found,
            "580.159.04 in /usr/lib64 and 550.54.15 in /usr/local/lib"
        );
        let same = with(vec![first(), libraries("/usr/lib/wsl", "580.159.04")]);
        assert_eq!(same.verdict, Verdict::Ok);
    }

    #[test]
    fn a_driver_without_its_libraries_is_told_apart_from_no_driver() {
        let finding = with(Vec::new());
        assert_eq!(finding.verdict, Verdict::Failure);
        assert!(finding.next.unwrap().contains("libnvidia-compute-580-server"));
        let none = one(&sample::host().no_driver().build(), "driver.libraries");
        assert_eq!(none.verdict, Verdict::NotApplicable);
    }

    #[test]
    fn a_headless_set_without_libcuda_fails_and_without_the_compiler_warns() {
        let missing = |change: fn(&mut DriverLibraries)| {
            let mut set = libraries("/usr/lib64", "580.159.04");
            change(&mut set);
            let host = sample::host().with(|host| host.driver.libraries = vec![set]);
            one(&host.build(), "driver.missing-libraries")
        };
        let cuda = missing(|set| set.has_cuda = false);
        assert_eq!(
            (cuda.verdict, cuda.found.as_str()),
            (Verdict::Failure, "libcuda.so.1")
        );
        assert_eq!(missing(|set| set.has_jit = false).verdict, Verdict::Warning);
    }
}
