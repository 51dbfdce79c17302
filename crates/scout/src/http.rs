//! HTTP/1.1 as far as one question to an API server needs it: one request, one answer, and the connection closes.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

/// Largest answer that is read, in bytes. A Node's metadata is some kilobytes.
pub const LARGEST: usize = 8 << 20;

/// Longest time that an answer may take, however it drips.
const LONGEST: Duration = Duration::from_mins(1);

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status, e.g. 200.
    pub status: u16,
    /// Its body, without the coding of the transfer.
    pub body: Vec<u8>,
}

/// The bytes are no answer, or not all of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// It ended too early.
    #[error("the answer ends in the middle")]
    CutOff,
    /// It is something else.
    #[error("the answer is not HTTP/1.1: {0}")]
    Malformed(&'static str),
}

/// A request's text. `path` and the values of headers hold no line ends: they are made of checked parts.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\n");
    for (name, value) in headers {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    let _ = write!(
        text,
        "Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let mut request = text.into_bytes();
    request.extend_from_slice(body);
    request
}

/// Asks over a connection, and reads until its end.
///
/// # Errors
/// Where the connection breaks, the answer is too large, or none.
pub fn exchange(mut connection: impl Read + Write, request: &[u8]) -> io::Result<Response> {
    connection.write_all(request)?;
    connection.flush()?;
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    let began = Instant::now();
    loop {
        match connection.read(&mut part) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(part.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A server that closes without saying so in TLS: whether all is there, the answer itself tells.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
        if answer.len() > LARGEST {
            let reason = "the answer is too large";
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        if began.elapsed() > LONGEST {
            let reason = "the answer does not come to its end";
            return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
        }
    }
    parse(&answer).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Reads an answer.
///
/// # Errors
/// Where the bytes are no answer, or not all of one. Without a length the answer is taken for cut off: only the end of
/// the connection would tell, which an attacker can bring about.
pub fn parse(bytes: &[u8]) -> Result<Response, ParseError> {
    let (head, body) = split(bytes, b"\r\n\r\n").ok_or(ParseError::CutOff)?;
    let head = std::str::from_utf8(head).map_err(|_| ParseError::Malformed("its head is no text"))?;
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let status = status
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .filter(|code| code.len() == 3)
        .and_then(|code| code.parse().ok())
        .ok_or(ParseError::Malformed("its first line names no status"))?;
    let mut length = None;
    let mut is_chunked = false;
    for line in lines {
        let (name, value) = line
            .split_once(':')
            .ok_or(ParseError::Malformed("a header has no colon"))?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("transfer-encoding") {
            is_chunked = value.eq_ignore_ascii_case("chunked");
        } else if name.eq_ignore_ascii_case("content-length") {
            let digits = value.bytes().all(|byte| byte.is_ascii_digit());
            let parsed = value.parse::<usize>().ok().filter(|_| digits);
            length = Some(parsed.ok_or(ParseError::Malformed("its length is no number"))?);
        }
    }
    let body = if is_chunked {
        chunks(body)?
    } else if matches!(status, 204 | 304) {
        Vec::new()
    } else {
        let length = length.ok_or(ParseError::CutOff)?;
        body.get(..length).ok_or(ParseError::CutOff)?.to_vec()
    };
    Ok(Response { status, body })
}

/// The body behind a chunked transfer; what follows the last chunk is not looked at.
fn chunks(mut rest: &[u8]) -> Result<Vec<u8>, ParseError> {
    let mut body = Vec::new();
    loop {
        let (line, after) = split(rest, b"\r\n").ok_or(ParseError::CutOff)?;
        let size = line.split(|&byte| byte == b';').next().unwrap_or_default();
        let size = std::str::from_utf8(size.trim_ascii()).unwrap_or_default();
        let digits = !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_hexdigit());
        let size = usize::from_str_radix(size, 16)
            .ok()
            .filter(|_| digits)
            .ok_or(ParseError::Malformed("a chunk has no size"))?;
        if size == 0 {
            return Ok(body);
        }
        let (chunk, after) = after.split_at_checked(size).ok_or(ParseError::CutOff)?;
        body.extend_from_slice(chunk);
        rest = match after {
            [b'\r', b'\n', rest @ ..] => rest,
            [] | [b'\r'] => return Err(ParseError::CutOff),
            _ => return Err(ParseError::Malformed("a chunk is longer than it says")),
        };
    }
}

/// What is before and after the first `mark`.
fn split<'a>(bytes: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes.windows(mark.len()).position(|window| window == mark)?;
    Some((bytes.get(..at)?, bytes.get(at + mark.len()..)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body(text: &str) -> Result<(u16, String), ParseError> {
        let response = parse(text.as_bytes())?;
        Ok((response.status, String::from_utf8(response.body).unwrap()))
    }

    #[test]
    fn answers_with_a_length_and_in_chunks_are_read() {
        let plain =
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\ncontent-length: 2\r\n\r\n{}trailing";
        assert_eq!(body(plain), Ok((200, "{}".to_owned())));
        let chunked = "HTTP/1.1 409 Conflict\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n";
        assert_eq!(body(chunked), Ok((409, "{\"a\":1}".to_owned())));
        assert_eq!(
            body("HTTP/1.1 204 No Content\r\nA: b\r\n\r\n"),
            Ok((204, String::new()))
        );
    }

    #[test]
    fn an_answer_that_is_cut_off_anywhere_is_never_taken_for_whole() {
        let whole = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n2\r\n67\r\n0\r\n";
        assert_eq!(body(whole), Ok((200, "1234567".to_owned())));
        let shorter = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n1234567";
        assert_eq!(body(shorter), Ok((200, "1234567".to_owned())));
        for text in [whole, shorter] {
            for end in 0..text.len() {
                // The last line of a chunked body can go without harm: the chunk of size 0 has been seen.
                let found = body(&text[..end]);
                assert_eq!(found, Err(ParseError::CutOff), "{end}");
            }
        }
        assert_eq!(
            body("HTTP/1.1 200 OK\r\nA: b\r\n\r\n{}"),
            Err(ParseError::CutOff),
            "no length"
        );
    }

    proptest! {
        #[test]
        fn whatever_comes_is_an_answer_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn what_was_cut_into_chunks_comes_back(parts in prop::collection::vec("[a-z]{1,20}", 0..8)) {
            let mut text = "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n".to_owned();
            for part in &parts {
                let _ = write!(text, "{:X}\r\n{part}\r\n", part.len());
            }
            text.push_str("0\r\n\r\n");
            prop_assert_eq!(body(&text), Ok((200, parts.concat())));
        }
    }
}
