//! How the agent reaches the API server.

use std::path::{Path, PathBuf};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use pitcrew_core::ports::HostFs;
use pitcrew_host::HostRoots;

use crate::error::Error;
use crate::output::Output;

/// Where kubelets have their own configuration: RKE2, K3s, kubeadm.
const OF_KUBELETS: &[&str] = &[
    "/var/lib/rancher/rke2/agent/kubelet.kubeconfig",
    "/var/lib/rancher/k3s/agent/kubelet.kubeconfig",
    "/etc/kubernetes/kubelet.conf",
];

/// A client as [`look`] finds it; `None` for a node on its own, which is told.
pub(super) async fn find(
    host: &HostRoots,
    root: &Path,
    output: &mut Output<'_>,
) -> Result<Option<Client>, Error> {
    match look(host, root).await {
        Ok(client) => Ok(Some(client)),
        Err(why) => {
            output.remark(&format!(
                "no API server is asked, so there are no labels and no status: {why}"
            ))?;
            Ok(None)
        }
    }
}

/// A client as the pod has it, or by `KUBECONFIG`, or as the node's kubelet has it; or why there is none. Nobody is asked
/// over the network yet.
pub(super) async fn look(host: &HostRoots, root: &Path) -> Result<Client, String> {
    let mut why = Vec::new();
    match Config::infer().await {
        Ok(config) => match Client::try_from(config) {
            Ok(client) => return Ok(client),
            Err(error) => why.push(error.to_string()),
        },
        Err(error) => why.push(error.to_string()),
    }
    for path in OF_KUBELETS.iter().map(Path::new) {
        let Ok(text) = host.read(path) else { continue };
        match of_kubelet(&text, root).await {
            Ok(client) => return Ok(client),
            Err(error) => why.push(format!("`{}`: {error}", path.display())),
        }
    }
    Err(why.join("; "))
}

async fn of_kubelet(text: &[u8], root: &Path) -> Result<Client, String> {
    let text = str::from_utf8(text).map_err(|error| error.to_string())?;
    let mut kubeconfig = Kubeconfig::from_yaml(text).map_err(|error| error.to_string())?;
    let beneath = |path: &mut Option<String>| {
        if let Some(old) = path {
            *old = moved(old, root).to_string_lossy().into_owned();
        }
    };
    for user in &mut kubeconfig.auth_infos {
        if let Some(user) = &mut user.auth_info {
            beneath(&mut user.client_certificate);
            beneath(&mut user.client_key);
            beneath(&mut user.token_file);
        }
    }
    for cluster in &mut kubeconfig.clusters {
        if let Some(cluster) = &mut cluster.cluster {
            beneath(&mut cluster.certificate_authority);
        }
    }
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let config = config.map_err(|error| error.to_string())?;
    Client::try_from(config).map_err(|error| error.to_string())
}

/// A path of the host, as it is here.
fn moved(path: &str, root: &Path) -> PathBuf {
    match Path::new(path).strip_prefix("/") {
        Ok(rest) => root.join(rest),
        Err(_) => path.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kubelets_configuration_is_read_with_its_files_beneath_the_hosts_root() {
        let root = tempfile::tempdir().unwrap();
        let text = "apiVersion: v1\nkind: Config\nclusters:\n- name: local\n  cluster:\n    server: https://127.0.0.1:6443\n    \
                    certificate-authority: /var/ca.crt\ncontexts:\n- name: Default\n  context:\n    cluster: local\n    \
                    user: user\ncurrent-context: Default\nusers:\n- name: user\n  user: {}\n";
        let missing = of_kubelet(text.as_bytes(), root.path()).await.err().unwrap();
        let expected = root.path().join("var/ca.crt").display().to_string();
        assert!(missing.contains(&expected), "{missing}");
        assert!(of_kubelet(b"{", root.path()).await.is_err());
        assert!(of_kubelet(b"\xff", root.path()).await.is_err());
    }
}
