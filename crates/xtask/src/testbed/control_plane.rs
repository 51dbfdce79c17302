//! etcd, the API server, the controller manager and the scheduler, all on loopback.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::config::API_PORT;
use super::daemon::Daemon;
use super::paths::Paths;

const ETCD_PORT: u16 = 12379;
const ETCD_PEER_PORT: u16 = 12380;
const CONTROLLER_MANAGER_PORT: u16 = 10257;
const SCHEDULER_PORT: u16 = 10259;

pub(crate) fn etcd(paths: &Paths) -> Daemon<'_> {
    Daemon::new(paths, "etcd", &[ETCD_PORT, ETCD_PEER_PORT])
}

pub(crate) fn api_server(paths: &Paths) -> Daemon<'_> {
    Daemon::new(paths, "kube-apiserver", &[API_PORT])
}

pub(crate) fn controller_manager(paths: &Paths) -> Daemon<'_> {
    Daemon::new(paths, "kube-controller-manager", &[CONTROLLER_MANAGER_PORT])
}

pub(crate) fn scheduler(paths: &Paths) -> Daemon<'_> {
    Daemon::new(paths, "kube-scheduler", &[SCHEDULER_PORT])
}

/// kubectl as the cluster's admin.
pub(crate) fn kubectl(paths: &Paths) -> Command {
    let mut command = Command::new(paths.bin().join("kubectl"));
    command
        .arg("--kubeconfig")
        .arg(paths.kubeconfig())
        .arg("--request-timeout=5s");
    command
}

/// True where kubectl ends well; what it says is of no interest.
pub(crate) fn asks_well(paths: &Paths, words: &[&str]) -> bool {
    kubectl(paths)
        .args(words)
        .output()
        .is_ok_and(|output| output.status.success())
}

/// True where http://127.0.0.1:PORT answers 200.
pub(crate) fn answers(port: u16, path: &str) -> bool {
    let ask = || -> std::io::Result<String> {
        let limit = Duration::from_secs(2);
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), limit)?;
        stream.set_read_timeout(Some(limit))?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut start = [0; 12];
        stream.read_exact(&mut start)?;
        Ok(String::from_utf8_lossy(&start).into_owned())
    };
    ask().is_ok_and(|start| start.ends_with(" 200"))
}

pub(crate) fn etcd_healthy() -> bool {
    answers(ETCD_PORT, "/health")
}

/// True where something listens on the port: for those whose health is behind TLS.
pub(crate) fn listens(port: u16) -> bool {
    TcpStream::connect_timeout(
        &SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        Duration::from_secs(2),
    )
    .is_ok()
}

pub(crate) fn controller_manager_listens() -> bool {
    listens(CONTROLLER_MANAGER_PORT)
}

pub(crate) fn scheduler_listens() -> bool {
    listens(SCHEDULER_PORT)
}

/// Starts what does not run and waits until each answers.
pub(crate) fn up(paths: &Paths) -> Result<()> {
    let etcd = etcd(paths);
    let program = paths.bin().join("etcd");
    etcd.start(&program, Command::new(&program).args(etcd_arguments(paths)))?;
    etcd.wait(Duration::from_secs(30), "etcd healthy", etcd_healthy)?;

    let api = api_server(paths);
    let program = paths.bin().join("kube-apiserver");
    api.start(&program, Command::new(&program).args(api_arguments(paths)))?;
    api.wait(Duration::from_mins(1), "API server ready", || {
        asks_well(paths, &["get", "--raw", "/readyz"])
    })?;
    // Only now: before its roles are made, both end on being forbidden to read their own settings.
    let manager = controller_manager(paths);
    let program = paths.bin().join("kube-controller-manager");
    manager.start(&program, Command::new(&program).args(manager_arguments(paths)))?;
    let scheduler = scheduler(paths);
    let program = paths.bin().join("kube-scheduler");
    scheduler.start(&program, Command::new(&program).args(scheduler_arguments(paths)))?;
    Ok(())
}

/// Waits for what pods need of the control plane.
pub(crate) fn settled(paths: &Paths) -> Result<()> {
    scheduler(paths).wait(Duration::from_secs(30), "scheduler listens", scheduler_listens)?;
    controller_manager(paths).wait(Duration::from_mins(1), "default service account", || {
        asks_well(paths, &["get", "serviceaccount", "default"])
    })
}

fn etcd_arguments(paths: &Paths) -> Vec<String> {
    let client = format!("http://127.0.0.1:{ETCD_PORT}");
    let peer = format!("http://127.0.0.1:{ETCD_PEER_PORT}");
    vec![
        "--name=testbed".into(),
        format!("--data-dir={}", paths.var("etcd").display()),
        // Nothing in it is worth surviving a power cut.
        "--unsafe-no-fsync".into(),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=testbed={peer}"),
        "--log-level=warn".into(),
    ]
}

fn api_arguments(paths: &Paths) -> Vec<String> {
    let file = |option: &str, name: &str| pki_argument(paths, option, name);
    vec![
        format!("--etcd-servers=http://127.0.0.1:{ETCD_PORT}"),
        "--bind-address=127.0.0.1".into(),
        format!("--secure-port={API_PORT}"),
        "--advertise-address=127.0.0.1".into(),
        // An Endpoints object must not hold a loopback address.
        "--endpoint-reconciler-type=none".into(),
        "--service-cluster-ip-range=127.0.0.0/24".into(),
        file("tls-cert-file", "apiserver.crt"),
        file("tls-private-key-file", "apiserver.key"),
        file("client-ca-file", "ca.crt"),
        file("service-account-key-file", "sa.pub"),
        file("service-account-signing-key-file", "sa.key"),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
        file("kubelet-client-certificate", "apiserver-kubelet.crt"),
        file("kubelet-client-key", "apiserver-kubelet.key"),
        file("kubelet-certificate-authority", "ca.crt"),
        "--kubelet-preferred-address-types=InternalIP".into(),
        file("requestheader-client-ca-file", "ca.crt"),
        "--requestheader-allowed-names=front-proxy-client".into(),
        "--requestheader-username-headers=X-Remote-User".into(),
        "--requestheader-group-headers=X-Remote-Group".into(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
        file("proxy-client-cert-file", "front-proxy.crt"),
        file("proxy-client-key-file", "front-proxy.key"),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--allow-privileged=true".into(),
        "--profiling=false".into(),
    ]
}

fn manager_arguments(paths: &Paths) -> Vec<String> {
    let mut arguments = client_arguments(paths, "controller-manager.conf");
    arguments.push("--use-service-account-credentials=true".into());
    arguments.extend(
        [
            ("service-account-private-key-file", "sa.key"),
            ("root-ca-file", "ca.crt"),
            ("cluster-signing-cert-file", "ca.crt"),
            ("cluster-signing-key-file", "ca.key"),
        ]
        .map(|(option, name)| pki_argument(paths, option, name)),
    );
    arguments
}

fn scheduler_arguments(paths: &Paths) -> Vec<String> {
    client_arguments(paths, "scheduler.conf")
}

/// What every client of the API server that runs once is told.
fn client_arguments(paths: &Paths, kubeconfig: &str) -> Vec<String> {
    let mut arguments = [
        "kubeconfig",
        "authentication-kubeconfig",
        "authorization-kubeconfig",
    ]
    .map(|option| pki_argument(paths, option, kubeconfig))
    .to_vec();
    arguments.extend(
        [
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
            "--profiling=false",
        ]
        .map(String::from),
    );
    arguments
}

fn pki_argument(paths: &Paths, option: &str, name: &str) -> String {
    format!("--{option}={}", paths.pki(name).display())
}
