//! The API server, asked for one Node's metadata and told its labels.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde::Deserialize;
use serde_json::json;

use crate::http::{self, Response};
use crate::labels::{MANAGER, Metadata};

/// Where the kubelet puts a pod's credentials.
pub const CREDENTIALS: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Longest wait for a connection, and for each part of an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Metadata alone: a Node's status is long, for the images that it lists.
const ACCEPT: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";

/// Why the API server could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This is no pod.
    #[error("`{}` can't be read: {source}; run it as a pod, or name a directory with `token` and `ca.crt`", .path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The certificate of the cluster's authority can't be used.
    #[error("`{}` holds no certificate that can be used: {reason}", .path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// It can't be reached, or the answer is none.
    #[error("the API server at {address} can't be asked: {source}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// It said no.
    #[error("the API server answered {status} to {what}: {message}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// The HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// It said something that isn't what was asked for.
    #[error("the API server's answer can't be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// The name is no name of a Node.
    #[error("`{0}` is no name of a node: lower-case letters, digits, `-` and `.`")]
    Name(String),
}

/// What the scout asks of an API server.
pub trait Nodes {
    /// The Node's metadata.
    ///
    /// # Errors
    /// Where it can't be had.
    fn metadata(&self) -> Result<Metadata, Error>;

    /// Makes these the labels that are ours; what else was ours goes.
    ///
    /// # Errors
    /// Where that is refused or can't be asked.
    fn apply(&self, labels: &BTreeMap<&'static str, &'static str>) -> Result<(), Error>;
}

/// A way to an API server.
pub trait Connect {
    /// Host and port, for people and the `Host` header.
    fn address(&self) -> String;

    /// A new connection.
    ///
    /// # Errors
    /// Where none can be made.
    fn connect(&self) -> Result<Box<dyn Connection>, Error>;

    /// What comes with each request; empty for none.
    ///
    /// # Errors
    /// Where it can't be read.
    fn token(&self) -> Result<String, Error>;
}

/// A connection, whatever is below it.
pub trait Connection: Read + Write {}

impl<T: Read + Write> Connection for T {}

/// One Node at an API server.
#[derive(Debug)]
pub struct Server<C> {
    way: C,
    path: String,
    node: String,
}

impl<C: Connect> Server<C> {
    /// The Node of this name.
    ///
    /// # Errors
    /// Where it can't be a Node's name.
    pub fn new(way: C, node: &str) -> Result<Self, Error> {
        let is_plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
        if node.is_empty() || node.len() > 253 || !node.bytes().all(is_plain) {
            return Err(Error::Name(node.to_owned()));
        }
        Ok(Self {
            way,
            path: format!("/api/v1/nodes/{node}"),
            node: node.to_owned(),
        })
    }

    fn ask(
        &self,
        what: &'static str,
        method: &str,
        path: &str,
        more: Option<(&str, &[u8])>,
    ) -> Result<Response, Error> {
        let (host, token) = (self.way.address(), self.way.token()?);
        let bearer = format!("Bearer {token}");
        let mut headers = vec![
            ("Host", host.as_str()),
            ("Accept", ACCEPT),
            ("User-Agent", MANAGER),
        ];
        if !token.is_empty() {
            headers.push(("Authorization", bearer.as_str()));
        }
        headers.extend(more.map(|(kind, _)| ("Content-Type", kind)));
        let request = http::request(method, path, &headers, more.map_or(&[], |(_, body)| body));
        let connection = self.way.connect()?;
        let response = http::exchange(connection, &request).map_err(|source| Error::Unreachable {
            address: self.way.address(),
            source,
        })?;
        if response.status / 100 == 2 {
            return Ok(response);
        }
        Err(Error::Refused {
            what,
            status: response.status,
            message: message(&response.body),
        })
    }
}

/// What a `Status` says, or the beginning of whatever it is.
fn message(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Status {
        message: String,
    }
    serde_json::from_slice::<Status>(body).map_or_else(
        |_| String::from_utf8_lossy(body).chars().take(200).collect(),
        |status| status.message,
    )
}

impl<C: Connect> Nodes for Server<C> {
    fn metadata(&self) -> Result<Metadata, Error> {
        #[derive(Deserialize)]
        struct Object {
            metadata: Metadata,
        }
        let response = self.ask("read the Node", "GET", &self.path, None)?;
        Ok(serde_json::from_slice::<Object>(&response.body)?.metadata)
    }

    fn apply(&self, labels: &BTreeMap<&'static str, &'static str>) -> Result<(), Error> {
        // Not by force: what another applies with another value is the other's.
        let path = format!("{}?fieldManager={MANAGER}", self.path);
        let body = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.node, "labels": labels},
        });
        let body = body.to_string();
        let more = ("application/apply-patch+yaml", body.as_bytes());
        self.ask("label the Node", "PATCH", &path, Some(more))?;
        Ok(())
    }
}

/// The cluster that a pod runs in.
#[derive(Debug, Clone)]
pub struct InCluster {
    /// Host of the API server, `KUBERNETES_SERVICE_HOST`.
    pub host: String,
    /// Its port, `KUBERNETES_SERVICE_PORT`.
    pub port: u16,
    /// Directory of `token` and `ca.crt`. Both are read anew each time, as they are replaced before they expire.
    pub credentials: PathBuf,
}

impl InCluster {
    fn file(&self, name: &str) -> PathBuf {
        self.credentials.join(name)
    }

    fn tls(&self) -> Result<ClientConfig, Error> {
        let path = self.file("ca.crt");
        let refused = |reason: String| Error::Authority {
            path: path.clone(),
            reason,
        };
        let text = read(&path)?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
            let certificate = certificate.map_err(|error| refused(error.to_string()))?;
            roots
                .add(certificate)
                .map_err(|error| refused(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(refused("it is empty".to_owned()));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| refused(error.to_string()))?;
        Ok(config.with_root_certificates(roots).with_no_client_auth())
    }
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::Credentials {
        path: path.to_owned(),
        source,
    })
}

impl Connect for InCluster {
    fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    fn connect(&self) -> Result<Box<dyn Connection>, Error> {
        let failed = |source: io::Error| Error::Unreachable {
            address: self.address(),
            source,
        };
        let config = self.tls()?;
        let name = ServerName::try_from(self.host.clone()).map_err(|_| {
            failed(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is no name of a host",
            ))
        })?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
        let addresses = (self.host.as_str(), self.port)
            .to_socket_addrs()
            .map_err(failed)?;
        for address in addresses {
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
                    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
                    let session = ClientConnection::new(Arc::new(config), name)
                        .map_err(|error| failed(io::Error::other(error)))?;
                    return Ok(Box::new(StreamOwned::new(session, stream)));
                }
                Err(error) => last = error,
            }
        }
        Err(failed(last))
    }

    fn token(&self) -> Result<String, Error> {
        Ok(read(&self.file("token"))?.trim().to_owned())
    }
}
