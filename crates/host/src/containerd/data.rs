//! What templates of the user see, from the node's facts.
//!
//! Fields are those of K3s's `ContainerdConfig` and of what it holds, as far as they follow from the node; a template
//! that uses another one ends in "can't tell".

use super::base::{MASKED, NodeFacts, STATE, Shape};
use super::template::Datum;

/// The data of a template.
pub fn template_data(shape: &Shape, node: &NodeFacts) -> Datum {
    let text = |text: String| Datum::Text(text);
    let (bin, conf) = match &node.cni {
        Some((bin, conf)) => (bin.display().to_string(), conf.display().to_string()),
        None => (String::new(), String::new()),
    };
    let class = |key: &str| {
        let found = node.resource_classes.iter().find(|(name, _)| name == key);
        Datum::Text(found.map(|(_, file)| file.clone()).unwrap_or_default())
    };
    let agent = Datum::structure([
        ("PauseImage", text(node.pause_image.clone())),
        ("Snapshotter", text(node.snapshotter.clone())),
        ("CNIBinDir", text(bin)),
        ("CNIConfDir", text(conf)),
        ("ImageServiceSocket", "".into()),
        ("Systemd", node.systemd_cgroup.into()),
        ("NodeName", Datum::Unknown("the node's name".to_owned())),
    ]);
    let dir = node.config_dir();
    let containerd = Datum::structure([
        ("Address", text(format!("{STATE}/containerd.sock"))),
        ("State", STATE.into()),
        ("Root", text(node.root())),
        ("Opt", text(node.root())),
        ("Log", text(format!("{}/containerd.log", node.root()))),
        ("Config", text(dir.join("config.toml").display().to_string())),
        ("Template", text(dir.display().to_string())),
        ("Registry", text(node.certs_d())),
        ("BlockIOConfig", class("blockio_config_file")),
        ("RDTConfig", class("rdt_config_file")),
        ("SELinux", node.selinux.into()),
        ("NonrootDevices", node.nonroot_devices.into()),
    ]);
    let mut config = vec![
        ("AgentConfig", agent),
        ("Containerd", containerd),
        ("SELinux", node.selinux.into()),
        (
            "DefaultRuntime",
            text(node.default_runtime.clone().unwrap_or_default()),
        ),
        ("ContainerRuntimeEndpoint", "".into()),
    ];
    // Gone with the change that made CNI's directories be written whenever they are set.
    if !shape.grpc {
        config.push(("NoFlannel", node.cni.is_none().into()));
    }
    let runtime = |kind: &str, binary: &str| {
        Datum::structure([("RuntimeType", kind.into()), ("BinaryName", binary.into())])
    };
    let runtimes = node.runtimes.iter().map(|found| {
        let binary = found.binary.display().to_string();
        (found.handler.clone(), runtime(&found.kind, &binary))
    });
    let mut data = vec![
        ("NodeConfig", Datum::structure(config)),
        // Both are of rootless mode, in which there is no GPU operator and no device plugin.
        ("DisableCgroup", false.into()),
        ("IsRunningInUserNS", false.into()),
        ("SystemdCgroup", node.systemd_cgroup.into()),
        ("EnableUnprivileged", node.unprivileged.into()),
        (
            "NoDefaultEndpoint",
            Datum::Unknown(".NoDefaultEndpoint".to_owned()),
        ),
        ("PrivateRegistryConfig", registries(node)),
        ("ExtraRuntimes", Datum::map(runtimes, runtime("", ""))),
        ("Program", text(node.program.clone())),
    ];
    if shape.nonroot_devices {
        data.push(("NonrootDevices", node.nonroot_devices.into()));
    }
    Datum::structure(data)
}

fn registries(node: &NodeFacts) -> Datum {
    let mirrors = node.mirrors.iter().map(|(registry, endpoints)| {
        let endpoints = endpoints
            .iter()
            .map(|endpoint| endpoint.as_str().into())
            .collect();
        let mirror = Datum::structure([
            ("Endpoints", Datum::List(endpoints)),
            ("Rewrites", Datum::Unknown("rewrites of a mirror".to_owned())),
        ]);
        (registry.clone(), mirror)
    });
    let logins = node.logins.iter().map(|(registry, keys)| {
        let field = |key: &str| {
            Datum::from(if keys.iter().any(|known| known == key) {
                MASKED
            } else {
                ""
            })
        };
        let auth = Datum::structure([
            ("Username", field("username")),
            ("Password", field("password")),
            ("Auth", field("auth")),
            ("IdentityToken", field("identitytoken")),
        ]);
        (
            registry.clone(),
            Datum::structure([("Auth", auth), ("TLS", tls())]),
        )
    });
    let without_login = || Datum::structure([("Auth", Datum::Nil), ("TLS", tls())]);
    Datum::structure([
        (
            "Mirrors",
            Datum::map(mirrors, Datum::Unknown("a mirror".to_owned())),
        ),
        ("Configs", Datum::map(logins, without_login())),
    ])
}

fn tls() -> Datum {
    Datum::Unknown("the TLS settings of a registry".to_owned())
}
