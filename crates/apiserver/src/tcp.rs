//! The server on a TCP listener, without TLS: for demonstrations, and for kubectl.
//!
//! There is no authentication: whoever reaches the listener may do everything. Listen on loopback.

use std::io;
use std::net::SocketAddr;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower_service::Service as _;

use crate::server::ApiServer;

/// Serves HTTP/1.1 until it is dropped, which also ends the connections. Needs a tokio runtime with I/O.
///
/// # Errors
/// Where no more connections can be taken.
pub async fn serve(server: ApiServer, listener: TcpListener) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        let server = server.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| server.clone().call(request));
            // A connection that breaks concerns its client alone.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// A kubeconfig, as YAML, for a server at this address.
pub fn kubeconfig(address: SocketAddr) -> String {
    format!(
        "apiVersion: v1
kind: Config
current-context: pitcrew
clusters:
- name: pitcrew
  cluster:
    server: http://{address}
contexts:
- name: pitcrew
  context:
    cluster: pitcrew
    user: pitcrew
    namespace: default
users:
- name: pitcrew
  user: {{}}
"
    )
}
