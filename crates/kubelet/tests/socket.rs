//! gRPC on unix sockets: who may be where, and what is left.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::Duration;

use pitcrew_kubelet::device_plugin::{
    Empty, RegisterRequest, Registration, RegistrationClient, RegistrationServer,
};
use pitcrew_kubelet::{MAX_PATH, Socket, SocketError, connect};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tonic::{Code, Request, Response, Status};

const DEADLINE: Duration = Duration::from_secs(10);

/// Answers at once, or never where the version is `never`; says that it was asked.
struct Server(mpsc::UnboundedSender<String>);

#[tonic::async_trait]
impl Registration for Server {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Empty>, Status> {
        let version = request.into_inner().version;
        let _ = self.0.send(version.clone());
        if version == "never" {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(Empty {}))
    }
}

struct Served {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    asked: mpsc::UnboundedReceiver<String>,
}

fn serve(socket: Socket) -> Served {
    let (stop, stopped) = oneshot::channel::<()>();
    let (ask, asked) = mpsc::unbounded_channel();
    let stopped = async {
        let _ = stopped.await;
    };
    let task = tokio::spawn(socket.serve(RegistrationServer::new(Server(ask)), stopped));
    Served { stop, task, asked }
}

async fn call(path: &Path, version: &str) -> Result<(), Status> {
    let channel = connect(path, DEADLINE).await.expect("somebody answers");
    let request = RegisterRequest {
        version: version.to_owned(),
        ..RegisterRequest::default()
    };
    RegistrationClient::new(channel)
        .register(request)
        .await
        .map(|_| ())
}

#[tokio::test]
async fn what_a_dead_process_left_is_replaced() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let path = dir.path().join("s.sock");
    let dead = Socket::bind(&path, 0o600).await.expect("nothing is there");
    drop(dead.keep_file());
    assert!(path.exists());
    let refused = connect(&path, DEADLINE).await.expect_err("nobody serves it");
    assert!(refused.to_string().contains("refused"), "{refused}");
    let socket = Socket::bind(&path, 0o640).await.expect("a dead one is replaced");
    let mode = std::fs::metadata(&path)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o640);
    let _served = serve(socket);
    assert!(call(&path, "").await.is_ok());
}

#[tokio::test]
async fn a_socket_that_somebody_serves_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let path = dir.path().join("s.sock");
    let _served = serve(Socket::bind(&path, 0o600).await.expect("nothing is there"));
    let error = Socket::bind(&path, 0o600).await.expect_err("it is in use");
    assert!(matches!(error, SocketError::InUse { .. }), "{error}");
    assert!(call(&path, "").await.is_ok());
}

#[tokio::test]
async fn nothing_but_a_socket_is_removed() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let target = dir.path().join("target.sock");
    drop(
        Socket::bind(&target, 0o600)
            .await
            .expect("nothing is there")
            .keep_file(),
    );
    let (file, link) = (dir.path().join("file"), dir.path().join("link"));
    std::fs::write(&file, "precious").expect("a file can be written");
    symlink(&target, &link).expect("a link can be made");
    for path in [&file, &link] {
        let error = Socket::bind(path, 0o600).await.expect_err("it is no socket");
        assert!(matches!(error, SocketError::NotASocket { .. }), "{error}");
    }
    assert_eq!(std::fs::read_to_string(&file).expect("it is there"), "precious");
    assert!(target.exists());
}

#[tokio::test]
async fn a_path_that_is_too_long_is_named_with_its_length() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let base = dir.path().as_os_str().len() + 1;
    let longest = dir.path().join("x".repeat(MAX_PATH - base));
    assert!(
        Socket::bind(&longest, 0o600).await.is_ok(),
        "the longest path can be served"
    );
    let path = dir.path().join("x".repeat(MAX_PATH - base + 1));
    let errors = [
        Socket::bind(&path, 0o600).await.map(|_| ()),
        connect(&path, DEADLINE).await.map(|_| ()),
    ];
    for result in errors {
        let error = result.expect_err("it is too long").to_string();
        assert!(
            error.contains("is 108 bytes long") && error.contains("may have 107"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn nobody_there_is_said_at_once() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let error = connect(dir.path().join("none"), DEADLINE)
        .await
        .expect_err("nobody is there");
    let SocketError::Connect { error, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}

#[tokio::test]
async fn a_server_that_stops_cuts_calls_that_do_not_end_and_removes_its_file() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let path = dir.path().join("s.sock");
    let mut served = serve(Socket::bind(&path, 0o600).await.expect("nothing is there"));
    let hanging = tokio::spawn({
        let path = path.clone();
        async move { call(&path, "never").await }
    });
    assert_eq!(served.asked.recv().await.as_deref(), Some("never"));
    drop(served.stop);
    tokio::time::timeout(DEADLINE, served.task)
        .await
        .expect("it ends though a call doesn't")
        .expect("it doesn't panic");
    assert!(!path.exists());
    let ended = tokio::time::timeout(DEADLINE, hanging)
        .await
        .expect("the call ends");
    let code = ended.expect("it doesn't panic").map_err(|status| status.code());
    assert!(
        matches!(
            code,
            Err(Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal)
        ),
        "{code:?}"
    );
}

#[tokio::test]
async fn a_server_that_is_dropped_cuts_everything_at_once() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let path = dir.path().join("s.sock");
    let mut served = serve(Socket::bind(&path, 0o600).await.expect("nothing is there"));
    let hanging = tokio::spawn({
        let path = path.clone();
        async move { call(&path, "never").await }
    });
    assert_eq!(served.asked.recv().await.as_deref(), Some("never"));
    served.task.abort();
    let ended = tokio::time::timeout(DEADLINE, hanging)
        .await
        .expect("the call ends");
    assert!(ended.expect("it doesn't panic").is_err());
}

#[tokio::test]
async fn a_successors_file_is_not_removed() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let path = dir.path().join("s.sock");
    let first = Socket::bind(&path, 0o600).await.expect("nothing is there");
    let file = first.watch();
    assert!(file.is_there());
    // As a kubelet does that starts.
    std::fs::remove_file(&path).expect("it is there");
    assert!(!file.is_there());
    let second = Socket::bind(&path, 0o600)
        .await
        .expect("nothing is there any more");
    assert!(!file.is_there() && second.watch().is_there());
    drop(first);
    assert!(second.watch().is_there());
}

#[tokio::test]
async fn a_channel_dials_again() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let path = dir.path().join("s.sock");
    let served = serve(Socket::bind(&path, 0o600).await.expect("nothing is there"));
    let mut client = RegistrationClient::new(connect(&path, DEADLINE).await.expect("it answers"));
    assert!(client.register(RegisterRequest::default()).await.is_ok());
    drop(served.stop);
    served.task.await.expect("it ends");
    let _again = serve(Socket::bind(&path, 0o600).await.expect("the first one is gone"));
    let end = tokio::time::Instant::now() + DEADLINE;
    while let Err(status) = client.register(RegisterRequest::default()).await {
        assert!(tokio::time::Instant::now() < end, "{status}");
    }
}
