//! The scout on imaginary buses, with an API server in memory behind real sockets.
#![allow(clippy::unwrap_used, reason = "tests, and what they share")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use pitcrew_apiserver::{ApiServer, Fault, Match, Verb, tcp};
use pitcrew_core::ports::{FileKind, HostFs};
use pitcrew_scenario::{HostRoot, Machine, Scenario};
use pitcrew_scout::labels::{PCI_PRESENT, PRESENT};
use pitcrew_scout::server::{Connect, Connection, InCluster};
use pitcrew_scout::{Error, Notice, Server};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const NODE: &str = "worker-1";

/// A host whose GPU can be pulled, or whose bus can't be read.
struct Host {
    with: HostRoot,
    without: HostRoot,
    has_gpu: AtomicBool,
    is_broken: AtomicBool,
}

impl Host {
    fn new(has_gpu: bool) -> Self {
        let machine = Machine::new(Scenario::builtin("rtx3060").unwrap());
        Self {
            with: HostRoot::over(machine).unwrap(),
            without: HostRoot::builtin("rke2").unwrap(),
            has_gpu: has_gpu.into(),
            is_broken: false.into(),
        }
    }

    fn now(&self) -> io::Result<&HostRoot> {
        if self.is_broken.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(if self.has_gpu.load(Ordering::Relaxed) {
            &self.with
        } else {
            &self.without
        })
    }
}

impl HostFs for Host {
    fn kind(&self, path: &Path) -> io::Result<FileKind> {
        self.now()?.kind(path)
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.now()?.read(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.now()?.list(path)
    }
}

/// An API server in memory that listens, and a Node in it.
struct Cluster {
    runtime: Runtime,
    server: ApiServer,
    address: SocketAddr,
}

impl Cluster {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let server = ApiServer::new();
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(tcp::serve(server.clone(), listener));
        let cluster = Self {
            runtime,
            server,
            address,
        };
        let node = json!({"metadata": {"name": NODE, "labels": {"kubernetes.io/os": "linux"}}});
        let node: Node = serde_json::from_value(node).unwrap();
        let nodes = cluster.nodes();
        let created = async { nodes.create(&PostParams::default(), &node).await };
        cluster.runtime.block_on(created).unwrap();
        cluster
    }

    fn nodes(&self) -> Api<Node> {
        // A client starts a task of its own.
        let _inside = self.runtime.enter();
        Api::all(Client::new(self.server.clone(), "default"))
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let nodes = self.nodes();
        let node = self.runtime.block_on(async { nodes.get(NODE).await }).unwrap();
        let mut labels = node.labels().clone();
        labels.remove("kubernetes.io/os");
        labels
    }

    /// As a person does with `kubectl label` and `kubectl annotate`.
    fn patch(&self, metadata: &Value) {
        let (nodes, params) = (self.nodes(), PatchParams::default());
        let patch = Patch::Merge(json!({"metadata": metadata}));
        let patched = async { nodes.patch(NODE, &params, &patch).await };
        self.runtime.block_on(patched).unwrap();
    }

    fn asked(&self) -> Vec<Verb> {
        let entries = self.server.audit().take().into_iter();
        entries
            .filter(|entry| entry.user_agent == "pitcrew-scout")
            .map(|entry| entry.verb)
            .collect()
    }

    fn plain(&self) -> Server<Plain> {
        Server::new(Plain(self.address), NODE).unwrap()
    }
}

/// Without TLS, as the server in memory listens.
struct Plain(SocketAddr);

impl Connect for Plain {
    fn address(&self) -> String {
        self.0.to_string()
    }
    fn connect(&self) -> Result<Box<dyn Connection>, Error> {
        let stream = TcpStream::connect(self.0).map_err(|source| Error::Unreachable {
            address: self.address(),
            source,
        })?;
        Ok(Box::new(stream))
    }
    fn token(&self) -> Result<String, Error> {
        Ok(String::new())
    }
}

/// Runs the scout; between two looks comes the next step, and after the last the end.
fn run<C: Connect>(host: &Host, server: &Server<C>, steps: &[&dyn Fn()]) -> Vec<Notice> {
    let told = RefCell::new(Vec::new());
    let mut steps = steps.iter();
    pitcrew_scout::run(
        host,
        server,
        Duration::from_secs(30),
        |_| steps.next().map(|step| step()).is_none(),
        |notice| told.borrow_mut().push(notice),
    );
    told.into_inner()
}

fn both() -> BTreeMap<String, String> {
    [PRESENT, PCI_PRESENT]
        .into_iter()
        .map(|name| (name.to_owned(), "true".to_owned()))
        .collect()
}

#[test]
fn a_gpu_that_comes_and_goes_is_followed_and_otherwise_nothing_is_asked() {
    let (cluster, host) = (Cluster::new(), Host::new(false));
    let told = run(
        &host,
        &cluster.plain(),
        &[
            &|| {
                assert_eq!(cluster.labels(), BTreeMap::new());
                assert_eq!(
                    cluster.asked(),
                    [Verb::Get],
                    "a node without a GPU is not written"
                );
                host.has_gpu.store(true, Ordering::Relaxed);
            },
            &|| {
                assert_eq!(cluster.labels(), both());
                assert_eq!(cluster.asked(), [Verb::Get, Verb::Patch]);
            },
            &|| {
                assert_eq!(cluster.asked(), [], "nothing has changed");
            },
            &|| host.has_gpu.store(false, Ordering::Relaxed),
            &|| {
                assert_eq!(cluster.labels(), BTreeMap::new());
            },
        ],
    );
    let labelled = vec![PCI_PRESENT, PRESENT];
    assert_eq!(told, [Notice::Labelled(labelled), Notice::Labelled(vec![])]);
}

#[test]
fn a_bus_that_can_not_be_read_takes_no_label_away() {
    let (cluster, host) = (Cluster::new(), Host::new(true));
    let told = run(
        &host,
        &cluster.plain(),
        &[&|| host.is_broken.store(true, Ordering::Relaxed), &|| {}, &|| {
            assert_eq!(cluster.labels(), both());
        }],
    );
    let Notice::Trouble(text) = &told[1] else {
        panic!("{told:?}")
    };
    assert!(text.contains("/sys/bus/pci/devices"), "{text}");
    assert_eq!(told.len(), 2, "told once: {told:?}");
}

#[test]
fn a_label_that_somebody_set_to_false_stays_and_keeps_the_agent_away() {
    let (cluster, host) = (Cluster::new(), Host::new(true));
    cluster.patch(&json!({"labels": {PRESENT: "false"}}));
    run(
        &host,
        &cluster.plain(),
        &[&|| {
            assert_eq!(cluster.labels().get(PRESENT).unwrap(), "false");
        }],
    );
}

#[test]
fn where_node_feature_discovery_runs_its_label_is_not_touched() {
    let (cluster, host) = (Cluster::new(), Host::new(true));
    cluster.patch(&json!({"annotations": {"nfd.node.kubernetes.io/feature-labels": "x"}}));
    run(
        &host,
        &cluster.plain(),
        &[&|| {
            assert_eq!(cluster.labels().into_keys().collect::<Vec<_>>(), [PRESENT]);
        }],
    );
}

#[test]
fn labels_that_another_keeps_too_outlive_ours() {
    let (cluster, host) = (Cluster::new(), Host::new(true));
    cluster.patch(&json!({"labels": {PRESENT: "true"}}));
    run(
        &host,
        &cluster.plain(),
        &[&|| host.has_gpu.store(false, Ordering::Relaxed), &|| {}],
    );
    assert_eq!(cluster.labels().into_keys().collect::<Vec<_>>(), [PRESENT]);
}

#[test]
fn an_api_server_that_is_away_is_told_later() {
    let (cluster, host) = (Cluster::new(), Host::new(true));
    let faults = cluster.server.faults();
    faults.fail(Match::default().verb(Verb::Get).name(NODE), Fault::Refused, 2);
    faults.fail(Match::default().verb(Verb::Patch), Fault::LostAnswer, 1);
    let told = run(&host, &cluster.plain(), &[&|| {}, &|| {}, &|| {}]);
    assert_eq!(cluster.labels(), both());
    assert!(matches!(told.first(), Some(Notice::Trouble(_))), "{told:?}");
}

#[test]
fn a_name_that_would_be_another_path_is_no_name() {
    for name in ["", "a/b", "a b", "A", "..%2f", "a\r\nX: y"] {
        let way = Plain((Ipv4Addr::LOCALHOST, 1).into());
        assert!(matches!(Server::new(way, name), Err(Error::Name(_))), "{name}");
    }
}

/// What stands before the API server: TLS, and a look at the token. Closes without a word where `rude`.
fn tls(backend: SocketAddr, dir: &Path, rude: bool) -> u16 {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    fs::write(dir.join("ca.crt"), certificate.pem()).unwrap();
    fs::write(dir.join("token"), "secret\n").unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let session = ServerConnection::new(config.clone()).unwrap();
            let mut stream = StreamOwned::new(session, stream.unwrap());
            // A client that doesn't trust us ends here.
            let Ok(request) = request(&mut stream) else {
                continue;
            };
            let is_ours = request
                .windows(29)
                .any(|part| part == b"Authorization: Bearer secret\r");
            let mut answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n".to_vec();
            if is_ours {
                let mut backend = TcpStream::connect(backend).unwrap();
                backend.write_all(&request).unwrap();
                answer.clear();
                backend.read_to_end(&mut answer).unwrap();
            }
            let _ = stream.write_all(&answer);
            if !rude {
                stream.conn.send_close_notify();
            }
            let _ = stream.flush();
        }
    });
    port
}

/// One request, to its end.
fn request(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut request = Vec::new();
    let mut part = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&request);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("Content-Length: "))
                .map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                return Ok(request);
            }
        }
        match stream.read(&mut part)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => request.extend_from_slice(&part[..count]),
        }
    }
}

fn in_cluster(port: u16, dir: &Path) -> Server<InCluster> {
    let way = InCluster {
        host: "127.0.0.1".to_owned(),
        port,
        credentials: dir.to_owned(),
    };
    Server::new(way, NODE).unwrap()
}

#[test]
fn over_tls_the_clusters_authority_is_asked_for_and_the_token_shown() {
    for rude in [false, true] {
        let (cluster, host) = (Cluster::new(), Host::new(true));
        let dir = tempfile::tempdir().unwrap();
        let port = tls(cluster.address, dir.path(), rude);
        let told = run(&host, &in_cluster(port, dir.path()), &[]);
        assert_eq!(
            told,
            [Notice::Labelled(vec![PCI_PRESENT, PRESENT])],
            "rude: {rude}"
        );
        assert_eq!(cluster.labels(), both());
    }
}

#[test]
fn a_token_that_was_replaced_is_read_anew() {
    let (cluster, host) = (Cluster::new(), Host::new(true));
    let dir = tempfile::tempdir().unwrap();
    let port = tls(cluster.address, dir.path(), false);
    fs::write(dir.path().join("token"), "expired").unwrap();
    let told = run(
        &host,
        &in_cluster(port, dir.path()),
        &[&|| {
            fs::write(dir.path().join("token"), "secret").unwrap();
        }],
    );
    assert!(
        matches!(&told[0], Notice::Trouble(text) if text.contains("401")),
        "{told:?}"
    );
    assert_eq!(cluster.labels(), both());
}

#[test]
fn a_server_of_another_authority_gets_no_token() {
    let (cluster, host) = (Cluster::new(), Host::new(true));
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let port = tls(cluster.address, dir.path(), false);
    tls(cluster.address, other.path(), false);
    let told = run(&host, &in_cluster(port, other.path()), &[]);
    assert!(
        matches!(&told[0], Notice::Trouble(text) if text.contains("certificate")),
        "{told:?}"
    );
    assert_eq!(cluster.labels(), BTreeMap::new());
    assert_eq!(cluster.asked(), []);
}

#[test]
fn outside_a_pod_it_says_what_is_missing() {
    let (dir, host) = (tempfile::tempdir().unwrap(), Host::new(true));
    let told = run(&host, &in_cluster(1, dir.path()), &[]);
    assert!(
        matches!(&told[0], Notice::Trouble(text) if text.contains("token") && text.contains("run it as a pod")),
        "{told:?}"
    );
}
