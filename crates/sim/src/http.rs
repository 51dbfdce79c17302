//! What is served on loopback: health and metrics of the imaginary node, as text.
//!
//! No more of HTTP than `GET`: one request for each connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The longest request line and headers that are read, in bytes.
const LONGEST_REQUEST: usize = 8 * 1024;
/// How long a client may take for its request, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections that are served at once; more have to wait.
const MOST_CONNECTIONS: usize = 64;

/// What is answered for a path; `None` where nothing is there.
pub type Pages = Arc<dyn Fn(&str) -> Option<Page> + Send + Sync>;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its status: 200 or 503.
    pub status: u16,
    /// Its text.
    pub text: String,
}

/// Serves until it is dropped.
///
/// # Errors
/// Where no more connections can be taken.
pub async fn serve(listener: TcpListener, pages: Pages) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        while connections.len() >= MOST_CONNECTIONS {
            connections.join_next().await;
        }
        while connections.try_join_next().is_some() {}
        let pages = Arc::clone(&pages);
        connections.spawn(async move {
            // A connection that breaks or takes too long concerns its client alone.
            let _ = tokio::time::timeout(PATIENCE, answer(stream, pages)).await;
        });
    }
}

async fn answer(mut stream: TcpStream, pages: Pages) -> io::Result<()> {
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let count = stream.read(&mut buffer).await?;
        if count == 0 || request.len() + count > LONGEST_REQUEST {
            return Ok(());
        }
        request.extend_from_slice(&buffer[..count]);
    }
    let response = response(&request, &*pages);
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await
}

/// The answer to a request's head.
fn response(request: &[u8], pages: &dyn Fn(&str) -> Option<Page>) -> String {
    let head = String::from_utf8_lossy(request);
    let line = head.lines().next().unwrap_or_default();
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let (status, text) = match method {
        "GET" | "HEAD" => match pages(path) {
            Some(page) => (page.status, page.text),
            None => (404, "not found\n".to_owned()),
        },
        _ => (405, "only GET is served here\n".to_owned()),
    };
    let reason = match status {
        200 => "OK",
        404 => "Not Found",
        405 => "Method Not Allowed",
        _ => "Service Unavailable",
    };
    let body = if method == "HEAD" { "" } else { text.as_str() };
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        text.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(path: &str) -> Option<Page> {
        (path == "/healthz").then(|| Page {
            status: 200,
            text: "ok\n".to_owned(),
        })
    }

    #[test]
    fn any_request_gets_an_answer() {
        let first_line = |request: &str| {
            let response = response(request.as_bytes(), &pages);
            response.lines().next().unwrap_or_default().to_owned()
        };
        assert_eq!(
            first_line("GET /healthz?verbose HTTP/1.1\r\n\r\n"),
            "HTTP/1.1 200 OK"
        );
        assert_eq!(first_line("GET / HTTP/1.1\r\n\r\n"), "HTTP/1.1 404 Not Found");
        assert_eq!(
            first_line("POST /healthz HTTP/1.1\r\n\r\n"),
            "HTTP/1.1 405 Method Not Allowed"
        );
        assert_eq!(first_line("\r\n\r\n"), "HTTP/1.1 405 Method Not Allowed");
        let head = response(b"HEAD /healthz HTTP/1.1\r\n\r\n", &pages);
        assert!(head.contains("Content-Length: 3\r\n") && head.ends_with("\r\n\r\n"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_get_an_answer(bytes: Vec<u8>) {
            let answer = response(&bytes, &pages);
            proptest::prop_assert!(answer.starts_with("HTTP/1.1 ") && answer.contains("\r\n\r\n"));
        }
    }

    #[tokio::test]
    async fn it_answers_over_tcp_and_a_silent_client_keeps_nobody_waiting() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, Arc::new(pages)));
        let _silent = TcpStream::connect(address).await.unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").await.unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert!(text.ends_with("\r\n\r\nok\n"), "{text}");
        server.abort();
    }
}
