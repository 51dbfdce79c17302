use std::fmt::Write as _;

use super::*;
use crate::containerd::memory::MemoryFs;
use crate::containerd::{Generation, effective, parse};
use crate::facts::{
    DeviceNodes, Distribution, Driver, DropIn as HostDropIn, Foreign, Kubelet, Role, Security, Service,
    Services, System,
};

const DIR: &str = "/var/lib/rancher/rke2/agent/etc/containerd";
const NVIDIA: &str = "/usr/local/nvidia/toolkit/nvidia-container-runtime";

/// A node in the few facts that matter here.
struct Node {
    release: &'static str,
    containerd: &'static str,
    files: Vec<(String, String)>,
    detected: Vec<(&'static str, &'static str)>,
    default_runtime: Option<&'static str>,
}

impl Node {
    fn new(release: &'static str, containerd: &'static str) -> Self {
        Self {
            release,
            containerd,
            files: vec![
                (NVIDIA.to_owned(), "binary".to_owned()),
                (
                    "/var/lib/rancher/rke2/bin/containerd".to_owned(),
                    "binary".to_owned(),
                ),
            ],
            detected: vec![("nvidia", NVIDIA)],
            default_runtime: None,
        }
    }

    /// As K3s's own template printed it for a node with and without GPU software.
    fn written(self, fixture: &str) -> Self {
        let path = format!(
            "{}/tests/fixtures/containerd/k3s-{fixture}.toml",
            env!("CARGO_MANIFEST_DIR")
        );
        let text = std::fs::read_to_string(path).unwrap();
        self.file("config.toml", &text)
    }

    fn file(mut self, name: &str, text: &str) -> Self {
        let path = if name.starts_with('/') {
            name.to_owned()
        } else {
            format!("{DIR}/{name}")
        };
        self.files.push((path, text.to_owned()));
        self
    }

    fn fs(&self) -> MemoryFs {
        MemoryFs::new(
            self.files
                .iter()
                .map(|(path, text)| (path.as_str(), text.as_str())),
        )
    }

    fn host(&self) -> Host {
        let fs = self.fs();
        let config_path = PathBuf::from(format!("{DIR}/config.toml"));
        let version: semver::Version = self.containerd.parse().unwrap();
        let config = match effective(&fs, &config_path, Generation::of(&version)) {
            Ok(found) => Reading::Value(found.config),
            Err(error) if error.what.contains("not there") => Reading::NotSupported,
            Err(error) => Reading::Failed(error.to_string()),
        };
        let templates = self.files.iter().filter(|(path, _)| path.contains(".tmpl"));
        let containerd = Containerd {
            version: Reading::Value(version),
            version_source: "its log",
            socket: "/run/k3s/containerd/containerd.sock".into(),
            is_running: true,
            binary: Reading::Value("/var/lib/rancher/rke2/bin/containerd".into()),
            config_path,
            config,
            templates: templates
                .map(|(path, text)| Template {
                    path: path.into(),
                    text: Reading::Value(text.clone()),
                })
                .collect(),
            drop_ins: self
                .files
                .iter()
                .filter(|(path, _)| path.contains(".toml.d/"))
                .map(|(path, text)| HostDropIn {
                    path: path.into(),
                    text: Reading::Value(text.clone()),
                    imported: false,
                })
                .collect(),
            detected_runtimes: self
                .detected
                .iter()
                .map(|(handler, binary)| ((*handler).to_owned(), PathBuf::from(binary)))
                .collect(),
        };
        let distribution = Distribution {
            kind: DistributionKind::Rke2,
            role: Role::Agent,
            version: Reading::Value(self.release.parse().unwrap()),
            data_dir: "/var/lib/rancher/rke2".into(),
            data_dir_moved: false,
            unit: Reading::Value("rke2-agent".to_owned()),
            profile: Reading::NotSupported,
            pod_security: Reading::NotSupported,
            selinux: Reading::NotSupported,
            default_runtime: self
                .default_runtime
                .map_or(Reading::NotSupported, |name| Reading::Value(name.to_owned())),
            ships_runtime_class: Reading::NotSupported,
        };
        Host {
            containerd: Reading::Value(containerd),
            distribution: Reading::Value(distribution),
            ..nothing()
        }
    }

    fn plan(&self) -> NextBoot {
        plan(&self.host(), &self.fs()).unwrap()
    }
}

/// A host of which nothing is known.
fn nothing() -> Host {
    Host {
        system: System {
            os: Reading::NotSupported,
            kernel: Reading::NotSupported,
            cgroup: Reading::NotSupported,
            secure_boot: Reading::NotSupported,
            lockdown: Reading::NotSupported,
            hypervisor: Reading::NotSupported,
            iommu_groups: Reading::NotSupported,
            usr_read_only: Reading::NotSupported,
            machine: Reading::NotSupported,
            command_line: Reading::NotSupported,
        },
        gpus: Reading::NotSupported,
        nvswitches: Reading::NotSupported,
        driver: Driver {
            loaded_modules: Reading::NotSupported,
            kernel_version: Reading::NotSupported,
            open_kernel_modules: Reading::NotSupported,
            module_on_disk: Reading::NotSupported,
            nouveau_blacklisted: Reading::NotSupported,
            libraries: Vec::new(),
            container_root: None,
        },
        devices: DeviceNodes {
            nodes: Vec::new(),
            majors: Reading::NotSupported,
        },
        security: Security {
            selinux: Reading::NotSupported,
            fapolicyd: Reading::NotSupported,
            denials: Reading::NotSupported,
            fips: Reading::NotSupported,
        },
        services: Services {
            fabric_manager: Service::Absent,
            persistenced: Service::Absent,
            cdi_refresh: Service::Absent,
            imex: Service::Absent,
        },
        distribution: Reading::NotSupported,
        containerd: Reading::NotSupported,
        cdi: Vec::new(),
        kubelet: Kubelet {
            root: "/var/lib/kubelet".into(),
            device_plugin_socket: Reading::NotSupported,
            pod_resources_socket: Reading::NotSupported,
            plugin_sockets: Vec::new(),
            registered_resources: Reading::NotSupported,
        },
        foreign: Foreign {
            toolkit: None,
            validations: Vec::new(),
            device_plugin: Vec::new(),
            host_toolkit: None,
        },
    }
}

/// What a plan says, without the texts.
fn told(plan: &NextBoot) -> String {
    let mut text = format!("{:?} from {:?}\n", plan.verdict(), plan.source);
    for difference in &plan.differences {
        let _ = writeln!(text, "{difference}");
    }
    for problem in &plan.problems {
        let _ = writeln!(text, "[{:?} {}] {problem}", problem.severity, problem.kind.id());
        if let Some(hint) = &problem.hint {
            let _ = writeln!(text, "    hint: {hint}");
        }
    }
    for line in &plan.lines {
        let _ = writeln!(text, "{line}");
    }
    text
}

#[test]
fn a_node_where_nothing_changed_comes_back_and_nothing_differs() {
    let mut node = Node::new("1.36.2+rke2r1", "2.2.6").written("de59b6327-v3-rke2-plain");
    node.detected.clear();
    insta::assert_snapshot!(told(&node.plan()), @"ComesBack from Base");
}

#[test]
fn a_binary_that_appeared_brings_its_handler() {
    let node = Node::new("1.36.2+rke2r1", "2.2.6").written("de59b6327-v3-rke2-plain");
    insta::assert_snapshot!(told(&node.plan()), @r#"
    ComesBack from Base
    handler nvidia: new, /usr/local/nvidia/toolkit/nvidia-container-runtime
    + plugins."io.containerd.cri.v1.runtime".containerd.runtimes.nvidia.options.BinaryName = "/usr/local/nvidia/toolkit/nvidia-container-runtime"
    + plugins."io.containerd.cri.v1.runtime".containerd.runtimes.nvidia.options.SystemdCgroup = true
    + plugins."io.containerd.cri.v1.runtime".containerd.runtimes.nvidia.runtime_type = "io.containerd.runc.v2"
    "#);
}

#[test]
fn a_template_that_repeats_a_runtime_that_is_found_ends_the_node() {
    let template = "{{ template \"base\" . }}\n\
                    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.'nvidia']\n\
                    \x20 runtime_type = \"io.containerd.runc.v2\"\n";
    let node = Node::new("1.36.2+rke2r1", "2.2.6")
        .written("de59b6327-v3-rke2-plain")
        .file("config-v3.toml.tmpl", template);
    insta::assert_snapshot!(told(&node.plan()));
}

#[test]
fn the_same_template_is_fine_where_the_binary_is_not_found() {
    let template = "{{ template \"base\" . }}\n\
                    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.'nvidia'.options]\n\
                    BinaryName = \"/usr/local/nvidia/toolkit/nvidia-container-runtime\"\n";
    let mut node = Node::new("1.36.2+rke2r1", "2.2.6")
        .written("de59b6327-v3-rke2-plain")
        .file("config-v3.toml.tmpl", template);
    node.detected.clear();
    let plan = node.plan();
    assert_eq!(plan.verdict(), Verdict::ComesBack, "{}", told(&plan));
    assert_eq!(plan.next.unwrap().handlers[0].0, "nvidia");
}

#[test]
fn a_drop_in_of_version_2_under_version_3_is_told() {
    let drop_in = "version = 2\n\
                   [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.\"gvisor\"]\n\
                   runtime_type = \"io.containerd.runsc.v1\"\n";
    let node = Node::new("1.36.2+rke2r1", "2.2.6")
        .written("de59b6327-v3-rke2-plain")
        .file("config-v3.toml.d/99-gvisor.toml", drop_in);
    insta::assert_snapshot!(told(&node.plan()));
}

#[test]
fn a_drop_in_on_containerd_1_takes_the_whole_section_away() {
    let main = "version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n\
                [plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"pause\"\n\
                [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\nSystemdCgroup = true\n";
    let drop_in = "version = 2\n\
                   [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.nvidia.options]\n\
                   BinaryName = \"/usr/local/nvidia/toolkit/nvidia-container-runtime\"\n";
    let node = Node::new("1.28.15+rke2r1", "1.7.22")
        .written("29848dea3-v2-rke2-plain")
        .file("config.toml.tmpl", main)
        .file("/etc/containerd/conf.d/nvidia.toml", drop_in);
    insta::assert_snapshot!(told(&node.plan()));
}

#[test]
fn a_drop_in_that_an_older_release_does_not_import_is_told() {
    let node = Node::new("1.33.5+rke2r1", "2.1.4")
        .written("e47c497a3-v3-rke2-plain")
        .file("config-v3.toml.d/a.toml", "version = 3\n");
    let plan = node.plan();
    assert_eq!(plan.verdict(), Verdict::ComesBackWithout, "{}", told(&plan));
    assert_eq!(plan.problems[0].kind, ProblemKind::DropInUnread);
}

#[test]
fn a_default_runtime_that_is_gone_ends_the_node() {
    let mut node = Node::new("1.36.2+rke2r1", "2.2.6").written("de59b6327-v3-rke2-nvidia-default");
    node.default_runtime = Some("nvidia");
    node.detected.clear();
    insta::assert_snapshot!(told(&node.plan()));
}

#[test]
fn a_default_runtime_that_is_found_is_fine() {
    let mut node = Node::new("1.36.2+rke2r1", "2.2.6").written("de59b6327-v3-rke2-plain");
    node.default_runtime = Some("nvidia");
    let plan = node.plan();
    assert_eq!(plan.verdict(), Verdict::ComesBack, "{}", told(&plan));
    assert_eq!(plan.next.unwrap().default_handler.as_deref(), Some("nvidia"));
}

#[test]
fn an_old_template_on_containerd_2_is_told_to_say_nothing() {
    let path = format!(
        "{}/tests/fixtures/containerd/template-v2-old-copy.tmpl",
        env!("CARGO_MANIFEST_DIR")
    );
    let template = std::fs::read_to_string(path).unwrap();
    let node = Node::new("1.36.2+rke2r1", "2.2.6")
        .written("de59b6327-v3-rke2-plain")
        .file("config.toml.tmpl", &template);
    let plan = node.plan();
    insta::assert_snapshot!(told(&NextBoot {
        lines: Vec::new(),
        ..plan
    }));
}

#[test]
fn a_template_that_a_tool_wrote_is_told() {
    let whole = "version = 2\n[plugins.\"io.containerd.gc.v1.scheduler\"]\npause_threshold = 0.02\n\
                 [plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"registry.k8s.io/pause:3.8\"\n\
                 [plugins.\"io.containerd.grpc.v1.cri\".containerd]\ndefault_runtime_name = \"nvidia\"\n\
                 [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.nvidia.options]\n\
                 BinaryName = \"/usr/local/nvidia/toolkit/nvidia-container-runtime\"\n";
    let node = Node::new("1.28.15+rke2r1", "1.7.22")
        .written("29848dea3-v2-rke2-plain")
        .file("config.toml.tmpl", whole);
    insta::assert_snapshot!(told(&NextBoot {
        lines: Vec::new(),
        ..node.plan()
    }));
}

#[test]
fn what_a_tool_wrote_into_the_rendered_file_will_be_gone() {
    let edited = "version = 3\n[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.nvidia-legacy.options]\n\
                  BinaryName = \"/usr/local/nvidia/toolkit/nvidia-container-runtime.legacy\"\n";
    let node = Node::new("1.36.2+rke2r1", "2.2.6").file("config.toml", edited);
    let plan = node.plan();
    insta::assert_snapshot!(told(&NextBoot {
        lines: Vec::new(),
        ..plan.clone()
    }));
    assert!(
        !plan.assumptions.is_empty(),
        "what the file could not tell is said"
    );
}

#[test]
fn templates_that_can_not_be_told_or_are_wrong_are_two_things() {
    let node = |template: &str| {
        Node::new("1.36.2+rke2r1", "2.2.6")
            .written("de59b6327-v3-rke2-plain")
            .file("config-v3.toml.tmpl", template)
            .plan()
    };
    let unknown = node("{{ template \"base\" . }}\n{{ sprigFunction }}");
    assert_eq!(unknown.verdict(), Verdict::CantTell);
    assert!(unknown.rendered.is_none());
    insta::assert_snapshot!(unknown.problems[0]);
    let wrong = node("{{ template \"base\" . }}\n{{ if .Program }}");
    assert_eq!(wrong.verdict(), Verdict::DoesNot);
    insta::assert_snapshot!(wrong.problems[0]);
}

#[test]
fn templates_that_are_not_used_are_named() {
    let node = Node::new("1.36.2+rke2r1", "2.2.6")
        .written("de59b6327-v3-rke2-plain")
        .file("config.toml.tmpl", "nonsense")
        .file("config-v3.toml.tmpl", "{{ template \"base\" . }}");
    let plan = node.plan();
    assert_eq!(plan.verdict(), Verdict::ComesBack, "{}", told(&plan));
    assert_eq!(
        plan.problems[0].to_string(),
        "config.toml.tmpl is not used: config-v3.toml.tmpl is there and comes first"
    );
    let old = Node::new("1.28.15+rke2r1", "1.7.22")
        .written("29848dea3-v2-rke2-plain")
        .file("config-v3.toml.tmpl", "nonsense");
    assert_eq!(old.plan().source, Source::Base);
}

#[test]
fn an_upgrade_writes_in_the_new_shape() {
    let node = Node::new("1.36.2+rke2r1", "2.2.6").written("29848dea3-v2-rke2-plain");
    let plan = node.plan();
    assert_eq!(plan.verdict(), Verdict::ComesBack, "{}", told(&plan));
    assert_eq!(plan.next.as_ref().unwrap().version, 3);
    assert!(
        plan.differences
            .iter()
            .any(|difference| difference.what == "version")
    );
    let rendered = plan.rendered.unwrap();
    assert!(rendered.contains("config-v3.toml.d"), "{rendered}");
    assert!(
        rendered.contains("sandbox = \"index.docker.io/rancher/mirrored-pause:3.6\""),
        "what is known of the node is kept: {rendered}"
    );
}

#[test]
fn logins_are_never_shown() {
    let registries =
        "configs:\n  registry.example:\n    auth:\n      username: robot\n      password: hunter2\n";
    let written = "# File generated by rke2. DO NOT EDIT.\nversion = 3\n\
                   [plugins.'io.containerd.cri.v1.images'.registry.configs.'registry.example'.auth]\n\
                   username = \"robot\"\npassword = \"hunter1\"\n";
    let node = Node::new("1.36.2+rke2r1", "2.2.6")
        .file("config.toml", written)
        .file("/etc/rancher/rke2/registries.yaml", registries);
    let plan = node.plan();
    let all = format!("{plan:?}");
    assert!(!all.contains("hunter"), "{all}");
    assert!(!all.contains("robot"), "{all}");
    let rendered = plan.rendered.unwrap();
    assert_eq!(
        rendered.matches(crate::containerd::MASKED).count(),
        2,
        "{rendered}"
    );
}

#[test]
fn logins_in_a_template_are_not_shown_either() {
    let registry = "plugins.'io.containerd.cri.v1.images'.registry.configs.'r'";
    let plain = format!(
        "{{{{ template \"base\" . }}}}\n[{registry}.auth]\nusername = 'robot'\npassword = \"hunter2\"\n"
    );
    let inline =
        format!("{{{{ template \"base\" . }}}}\n[{registry}]\nauth = {{ password = \"hunter2\" }}\n");
    let headers = "{{ template \"base\" . }}\n[plugins.'io.containerd.cri.v1.images'.registry.headers]\n\
                   Authorization = ['Bearer hunter2']\n"
        .to_owned();
    let broken = [&plain, &headers].map(|text| format!("{text}[grpc]\n"));
    for template in [plain, inline, headers].into_iter().chain(broken) {
        let node = Node::new("1.36.2+rke2r1", "2.2.6")
            .written("de59b6327-v3-rke2-plain")
            .file("config-v3.toml.tmpl", &template);
        let all = format!("{:?}", node.plan());
        assert!(!all.contains("hunter"), "{all}");
        assert!(!all.contains("robot"), "{all}");
        assert!(all.contains(crate::containerd::MASKED), "{all}");
    }
}

struct Says(Dumped);

impl ContainerdDump for Says {
    fn dump(&self, _: &Path, files: &[DumpFile]) -> std::io::Result<Dumped> {
        assert_eq!(files[0].name, "000.toml");
        Ok(self.0.clone())
    }
}

struct Absent;

impl ContainerdDump for Absent {
    fn dump(&self, _: &Path, _: &[DumpFile]) -> std::io::Result<Dumped> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}

#[test]
fn without_containerds_own_word_nothing_passes() {
    let node = Node::new("1.36.2+rke2r1", "2.2.6").written("de59b6327-v3-rke2-plain");
    let mut plan = node.plan();
    verify(&mut plan, &node.host(), &node.fs(), &Absent);
    assert_eq!(plan.verdict(), Verdict::CantTell);
    assert!(
        plan.problems[0]
            .to_string()
            .starts_with("not verified by the node's own containerd:")
    );
}

#[test]
fn what_containerd_says_outranks_what_was_read_here() {
    let node = Node::new("1.36.2+rke2r1", "2.2.6").written("de59b6327-v3-rke2-plain");
    let mut plan = node.plan();
    let dump = "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\nBinaryName = ''\n";
    let says = |success: bool, stderr: &str| {
        Says(Dumped {
            success,
            stdout: dump.to_owned(),
            stderr: stderr.to_owned(),
        })
    };
    verify(&mut plan, &node.host(), &node.fs(), &says(true, ""));
    assert_eq!(plan.verdict(), Verdict::ComesBackWithout, "{}", told(&plan));
    assert_eq!(plan.problems[0].kind, ProblemKind::DumpDiffers);
    let mut plan = node.plan();
    verify(
        &mut plan,
        &node.host(),
        &node.fs(),
        &says(false, "containerd: it can't be\n"),
    );
    assert_eq!(plan.verdict(), Verdict::DoesNot);
    assert!(
        plan.problems[0].to_string().contains("it can't be"),
        "{}",
        told(&plan)
    );
    assert!(plan.next.is_none());
    assert!(parse(dump).is_ok());
}

/// A host on which a file or directory may not be read, nor anything in it be looked at.
struct Forbidden<'a>(MemoryFs, &'a str);

impl Forbidden<'_> {
    fn check(&self, path: &Path) -> std::io::Result<()> {
        if path.starts_with(self.1) {
            return Err(std::io::ErrorKind::PermissionDenied.into());
        }
        Ok(())
    }
}

impl HostFs for Forbidden<'_> {
    fn kind(&self, path: &Path) -> std::io::Result<pitcrew_core::ports::FileKind> {
        self.check(path.parent().unwrap_or(path))?;
        self.0.kind(path)
    }

    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        self.check(path)?;
        self.0.read(path)
    }

    fn list(&self, path: &Path) -> std::io::Result<Vec<String>> {
        self.check(path)?;
        self.0.list(path)
    }
}

#[test]
fn a_node_is_not_said_to_come_back_or_to_break_by_files_that_may_not_be_read() {
    let drop_in = format!("{DIR}/config-v3.toml.d/10-ours.toml");
    let node = Node::new("1.36.2+rke2r1", "2.2.6").file(&drop_in, "version = 3\n");
    assert_eq!(node.plan().verdict(), Verdict::ComesBack);
    for forbidden in [drop_in, format!("{DIR}/config-v3.toml.d")] {
        let plan = plan(&node.host(), &Forbidden(node.fs(), &forbidden)).unwrap();
        assert_eq!(plan.verdict(), Verdict::CantTell, "{forbidden}: {}", told(&plan));
    }
    let mut host = node.host();
    if let Reading::Value(containerd) = &mut host.containerd {
        containerd.config = Reading::Failed("permission denied".to_owned());
    }
    let plan = plan(&host, &Forbidden(node.fs(), DIR)).unwrap();
    assert_eq!(plan.verdict(), Verdict::CantTell, "{}", told(&plan));
}
