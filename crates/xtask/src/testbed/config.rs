//! The configuration files that the node's programs read.

use anyhow::Result;

use super::Containerd;
use super::cgroup;
use super::machine;
use super::paths::{Paths, write};

/// With 443 and a service range of 127.0.0.0/24, the Service `kubernetes` is 127.0.0.1:443: in-cluster
/// configuration works without kube-proxy.
pub(crate) const API_PORT: u16 = 443;
/// A loopback address is accepted as the node's only where it is also its name.
pub(crate) const NODE_NAME: &str = "127.0.0.1";
/// The pods' bridge; it has no address on the node and leads nowhere.
pub(crate) const BRIDGE: &str = "pitcrewtb0";
pub(crate) const PAUSE_IMAGE: &str = "localhost/pause:1";
pub(crate) const BUSYBOX_IMAGE: &str = "localhost/busybox:1";
/// Busybox, glibc, and `probe`, which asks what a container can do with its GPUs.
pub(crate) const GLIBC_IMAGE: &str = "localhost/glibc:1";

/// Writes containerd's, the CNI's and the kubelet's configuration.
pub(crate) fn write_all(paths: &Paths, containerd: Containerd) -> Result<()> {
    let toml = match containerd {
        Containerd::Current => current(paths),
        Containerd::Old => old(paths),
    };
    write(&paths.etc("containerd.toml"), toml)?;
    write(&paths.etc("cni/10-testbed.conflist"), network(paths))?;
    write(&paths.etc("resolv.conf"), "nameserver 127.0.0.1\n")?;
    write(&paths.etc("kubelet.yaml"), kubelet(paths))
}

/// An overlay can't lie on an overlay; then every layer is a copy.
fn snapshotter(paths: &Paths) -> &'static str {
    if machine::on_overlay(paths.root()) {
        "native"
    } else {
        "overlayfs"
    }
}

fn current(paths: &Paths) -> String {
    format!(
        "version = 3
root = '{root}'
state = '{state}'
imports = ['/etc/containerd/conf.d/*.toml']
[grpc]
  address = '{socket}'
[plugins.'io.containerd.internal.v1.opt']
  path = '{opt}'
[plugins.'io.containerd.nri.v1.nri']
  disable = false
[plugins.'io.containerd.cri.v1.images']
  snapshotter = '{snapshotter}'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '{PAUSE_IMAGE}'
[plugins.'io.containerd.cri.v1.runtime']
  # Without CAP_SYS_RESOURCE no process may lower its oom_score_adj.
  restrict_oom_score_adj = true
  enable_cdi = true
  cdi_spec_dirs = ['/etc/cdi', '/var/run/cdi']
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['{cni}']
  conf_dir = '{cni_conf}'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
    BinaryName = '{runc}'
    SystemdCgroup = false
[plugins.'io.containerd.grpc.v1.cri']
  stream_server_address = '127.0.0.1'
",
        root = paths.var("containerd").display(),
        state = paths.run("containerd").display(),
        socket = paths.socket().display(),
        opt = paths.var("opt").display(),
        snapshotter = snapshotter(paths),
        cni = paths.cni().display(),
        cni_conf = paths.etc("cni").display(),
        runc = paths.bin().join("runc").display(),
    )
}

fn old(paths: &Paths) -> String {
    format!(
        "version = 2
root = '{root}'
state = '{state}'
imports = ['/etc/containerd/conf.d/*.toml']
[grpc]
  address = '{socket}'
[plugins.'io.containerd.internal.v1.opt']
  path = '{opt}'
[plugins.'io.containerd.grpc.v1.cri']
  sandbox_image = '{PAUSE_IMAGE}'
  stream_server_address = '127.0.0.1'
  restrict_oom_score_adj = true
  enable_cdi = true
  cdi_spec_dirs = ['/etc/cdi', '/var/run/cdi']
[plugins.'io.containerd.grpc.v1.cri'.cni]
  bin_dir = '{cni}'
  conf_dir = '{cni_conf}'
[plugins.'io.containerd.grpc.v1.cri'.containerd]
  snapshotter = '{snapshotter}'
[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
  [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc.options]
    BinaryName = '{runc}'
    SystemdCgroup = false
",
        root = paths.var("containerd17").display(),
        state = paths.run("containerd17").display(),
        socket = paths.socket().display(),
        opt = paths.var("opt").display(),
        snapshotter = snapshotter(paths),
        cni = paths.cni().display(),
        cni_conf = paths.etc("cni").display(),
        runc = paths.bin().join("runc").display(),
    )
}

fn network(paths: &Paths) -> String {
    let network = serde_json::json!({
        "cniVersion": "1.0.0",
        "name": "pitcrew-testbed",
        "plugins": [
            {
                "type": "bridge", "bridge": BRIDGE, "isGateway": false, "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "dataDir": paths.var("cni"),
                    "ranges": [[{"subnet": "10.254.0.0/24"}]],
                },
            },
            {"type": "apifwd", "port": API_PORT, "stateDir": paths.run("apifwd")},
        ],
    });
    format!("{network:#}\n")
}

fn kubelet(paths: &Paths) -> String {
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 127.0.0.1
healthzBindAddress: 127.0.0.1
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
cgroupRoot: /{cgroup}
makeIPTablesUtilChains: false
containerRuntimeEndpoint: unix://{socket}
resolvConf: {resolv}
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: {ca}}}
authorization: {{mode: Webhook}}
tlsCertFile: {certificate}
tlsPrivateKeyFile: {key}
# A small disk must not end a test.
imageGCHighThresholdPercent: 100
evictionHard: {{memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}}
",
        cgroup = cgroup::NAME,
        socket = paths.socket().display(),
        resolv = paths.etc("resolv.conf").display(),
        ca = paths.pki("ca.crt").display(),
        certificate = paths.pki("kubelet-serving.crt").display(),
        key = paths.pki("kubelet-serving.key").display(),
    )
}
