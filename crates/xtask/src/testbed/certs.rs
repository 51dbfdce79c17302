//! The cluster's certificates and kubeconfigs, made once.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

use super::config::{API_PORT, NODE_NAME};
use super::paths::{Paths, write};

/// One certificate: its file name, whom it names, whether it serves or asks.
struct Leaf {
    name: &'static str,
    user: String,
    group: Option<&'static str>,
    usage: ExtendedKeyUsagePurpose,
    names: &'static [&'static str],
    kubeconfig: bool,
}

impl Leaf {
    fn client(name: &'static str, user: &str, group: Option<&'static str>, kubeconfig: bool) -> Self {
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        Self {
            name,
            user: user.into(),
            group,
            usage,
            names: &[],
            kubeconfig,
        }
    }

    fn server(
        name: &'static str,
        user: &str,
        group: Option<&'static str>,
        names: &'static [&'static str],
    ) -> Self {
        let usage = ExtendedKeyUsagePurpose::ServerAuth;
        Self {
            name,
            user: user.into(),
            group,
            usage,
            names,
            kubeconfig: false,
        }
    }
}

fn leaves() -> Vec<Leaf> {
    let node = format!("system:node:{NODE_NAME}");
    vec![
        Leaf::server(
            "apiserver",
            "kube-apiserver",
            None,
            &[
                "localhost",
                "kubernetes",
                "kubernetes.default",
                "kubernetes.default.svc",
                "kubernetes.default.svc.cluster.local",
            ],
        ),
        Leaf::server("kubelet-serving", &node, Some("system:nodes"), &["localhost"]),
        Leaf::client(
            "apiserver-kubelet",
            "kube-apiserver-kubelet-client",
            Some("system:masters"),
            false,
        ),
        Leaf::client("front-proxy", "front-proxy-client", None, false),
        Leaf::client("controller-manager", "system:kube-controller-manager", None, true),
        Leaf::client("scheduler", "system:kube-scheduler", None, true),
        Leaf::client("kubelet", &node, Some("system:nodes"), true),
        Leaf::client("admin", "admin", Some("system:masters"), true),
    ]
}

/// Makes what is not there. The admin's kubeconfig comes last, so it stands for all of them.
pub(crate) fn provide(paths: &Paths) -> Result<()> {
    if paths.kubeconfig().is_file() {
        return Ok(());
    }
    let authority_key = KeyPair::generate()?;
    let mut authority = parameters("pitcrew-testbed", None);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    put(paths, "ca.crt", &authority.self_signed(&authority_key)?.pem())?;
    put(paths, "ca.key", &authority_key.serialize_pem())?;
    let issuer = Issuer::new(authority, authority_key);

    let accounts = KeyPair::generate()?;
    put(paths, "sa.key", &accounts.serialize_pem())?;
    put(paths, "sa.pub", &accounts.public_key_pem())?;

    for leaf in leaves() {
        let key = KeyPair::generate()?;
        let mut wanted = parameters(&leaf.user, leaf.group);
        wanted.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if leaf.usage == ExtendedKeyUsagePurpose::ServerAuth {
            for name in leaf.names {
                wanted
                    .subject_alt_names
                    .push(SanType::DnsName((*name).try_into()?));
            }
            wanted
                .subject_alt_names
                .push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        }
        wanted.extended_key_usages = vec![leaf.usage];
        put(
            paths,
            &format!("{}.crt", leaf.name),
            &wanted.signed_by(&key, &issuer)?.pem(),
        )?;
        put(paths, &format!("{}.key", leaf.name), &key.serialize_pem())?;
        if leaf.kubeconfig {
            put(
                paths,
                &format!("{}.conf", leaf.name),
                &kubeconfig(paths, leaf.name),
            )?;
        }
    }
    Ok(())
}

fn parameters(user: &str, group: Option<&str>) -> CertificateParams {
    let mut made = CertificateParams::default();
    made.distinguished_name = rcgen::DistinguishedName::new();
    if let Some(group) = group {
        made.distinguished_name.push(DnType::OrganizationName, group);
    }
    made.distinguished_name.push(DnType::CommonName, user);
    // Wide, so that a machine whose clock is off still has a cluster.
    made.not_before = date_time_ymd(2020, 1, 1);
    made.not_after = date_time_ymd(2045, 1, 1);
    made
}

fn kubeconfig(paths: &Paths, name: &str) -> String {
    let file = |name: String| paths.pki(&name).display().to_string();
    format!(
        "apiVersion: v1
kind: Config
current-context: testbed
clusters:
- name: testbed
  cluster:
    server: https://127.0.0.1:{API_PORT}
    certificate-authority: {}
users:
- name: {name}
  user:
    client-certificate: {}
    client-key: {}
contexts:
- name: testbed
  context:
    cluster: testbed
    user: {name}
",
        file("ca.crt".into()),
        file(format!("{name}.crt")),
        file(format!("{name}.key")),
    )
}

/// Writes a file that only its owner reads; whole, for it is renamed into place.
fn put(paths: &Paths, name: &str, text: &str) -> Result<()> {
    let temporary = paths.pki(&format!("{name}.part"));
    write(&temporary, text)?;
    std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&temporary, paths.pki(name)).with_context(|| format!("could not put {name} in place"))
}
