//! gRPC on unix sockets: dialling one, and serving on one.

use std::convert::Infallible;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::transport::{Channel, Endpoint, Uri};
use tower::Service;

/// The longest path of a unix socket, in bytes: `sun_path` of unix(7) has 108, of which one ends the text.
pub const MAX_PATH: usize = 107;

/// How long calls that are under way may take to end when a server stops.
const GRACE: Duration = Duration::from_millis(500);
/// Between two tries to accept a connection where the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a socket can't be dialled or served.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The kernel takes no such path.
    #[error(
        "{} is {length} bytes long, and a unix socket's path may have {MAX_PATH}; use a shorter directory",
        path.display()
    )]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
    /// Another process serves there.
    #[error("another process serves {}; stop that one first", path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// Something else has that name.
    #[error("{} is there and is no socket; remove it if nothing needs it", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The socket could not be made.
    #[error("could not serve on {}: {error}", path.display())]
    Bind {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// Nobody answers there.
    #[error("could not connect to {}: {error}", path.display())]
    Connect {
        /// The path.
        path: PathBuf,
        /// What the kernel said; [`io::ErrorKind::TimedOut`] where nothing was said in time.
        error: io::Error,
    },
}

fn check_length(path: &Path) -> Result<(), SocketError> {
    let length = path.as_os_str().as_bytes().len();
    if length > MAX_PATH {
        return Err(SocketError::TooLong {
            path: path.to_owned(),
            length,
        });
    }
    Ok(())
}

/// Dials a unix socket. The channel dials again by itself where the connection was lost.
///
/// # Errors
///
/// [`SocketError::TooLong`]; [`SocketError::Connect`] where nothing answers within `timeout`.
pub async fn connect(path: impl AsRef<Path>, timeout: Duration) -> Result<Channel, SocketError> {
    let path = path.as_ref().to_owned();
    check_length(&path)?;
    let failed = |error| SocketError::Connect {
        path: path.clone(),
        error,
    };
    let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer in {timeout:?}"));
    // The first connection is made here, where the kernel's own word on it isn't lost yet.
    let first = tokio::time::timeout(timeout, UnixStream::connect(&path))
        .await
        .map_err(|_| failed(late()))?
        .map_err(failed)?;
    let first = Arc::new(Mutex::new(Some(first)));
    let dialled = path.clone();
    let connector = tower::service_fn(move |_: Uri| {
        let ready = first.lock().unwrap_or_else(PoisonError::into_inner).take();
        let path = dialled.clone();
        async move {
            let stream = match ready {
                Some(stream) => stream,
                None => UnixStream::connect(&path).await?,
            };
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    // The name is only what the other side sees as `:authority`.
    let endpoint = Endpoint::from_static("http://localhost").connect_timeout(timeout);
    tokio::time::timeout(timeout, endpoint.connect_with_connector(connector))
        .await
        .map_err(|_| failed(late()))?
        .map_err(|error| failed(io::Error::other(error)))
}

/// A unix socket that is listened on. Its file goes with it, unless somebody else put another one there meanwhile.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    file: File,
}

/// A socket's file, and which one it is: the same name may be another's by now.
#[derive(Debug)]
struct File {
    path: PathBuf,
    identity: (u64, u64),
    keep: bool,
}

impl Socket {
    /// Listens on `path`, whose file gets the permissions `mode` (e.g. `0o600`). What a dead predecessor left is
    /// removed; a socket that somebody serves is left alone.
    pub async fn bind(path: impl AsRef<Path>, mode: u32) -> Result<Self, SocketError> {
        let path = path.as_ref().to_owned();
        check_length(&path)?;
        let failed = |error| SocketError::Bind {
            path: path.clone(),
            error,
        };
        remove_dead(&path).await?;
        let listener = UnixListener::bind(&path).map_err(failed)?;
        let file = File {
            identity: identity(&path).map_err(failed)?,
            path: path.clone(),
            keep: false,
        };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
        Ok(Self { listener, file })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Leaves its file behind when it goes, as a process does that is killed.
    #[must_use]
    pub fn keep_file(mut self) -> Self {
        self.file.keep = true;
        self
    }

    /// A look at its file, for as long as the socket is served elsewhere.
    pub fn watch(&self) -> SocketFile {
        SocketFile {
            path: self.file.path.clone(),
            identity: self.file.identity,
        }
    }

    /// Serves one gRPC service until `stop`. Then the file is removed, no connection is taken any more, and calls that
    /// are under way have half a second to end.
    ///
    /// Dropping the future cuts all connections at once.
    pub async fn serve<S>(self, service: S, stop: impl Future<Output = ()>)
    where
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
    {
        let Self { listener, file } = self;
        let mut connections = JoinSet::new();
        let (stopping, stopped) = watch::channel(false);
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(connection(stream, service.clone(), stopped.clone()));
                    }
                    Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
        drop(file);
        drop(listener);
        stopping.send_replace(true);
        let ended = async { while connections.join_next().await.is_some() {} };
        // What isn't over by then is cut where `connections` is dropped.
        let _ = tokio::time::timeout(GRACE, ended).await;
    }
}

/// One connection, to its end.
async fn connection<S>(stream: UnixStream, service: S, mut stopped: watch::Receiver<bool>)
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let mut serving = pin!(
        http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
    );
    let stopping = async { stopped.wait_for(|&stopped| stopped).await.is_ok() };
    // A connection that breaks is the peer's business: its next one is as good.
    tokio::select! {
        _ = &mut serving => return,
        _ = stopping => {}
    }
    serving.as_mut().graceful_shutdown();
    let _ = serving.await;
}

/// A look at the file of a socket. Kubelets remove all sockets in their directory when they start.
#[derive(Debug, Clone)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    /// True while the file is there and is this socket's.
    pub fn is_there(&self) -> bool {
        identity(&self.path).is_ok_and(|identity| identity == self.identity)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if !self.keep && identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            // Without it the next one removes it as a dead one's.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Device and inode.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let meta = std::fs::symlink_metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

/// Removes a socket that nobody serves.
async fn remove_dead(path: &Path) -> Result<(), SocketError> {
    let failed = |error| SocketError::Bind {
        path: path.to_owned(),
        error,
    };
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => {}
        Ok(_) => {
            return Err(SocketError::NotASocket {
                path: path.to_owned(),
            });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Also where it may not be dialled or has too much to do: somebody may be there.
        _ => Err(SocketError::InUse {
            path: path.to_owned(),
        }),
    }
}
