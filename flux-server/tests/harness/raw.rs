//! A connection where each byte matters.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use socket2::{Domain, Socket, Type};

use super::call::Answer;
use super::document;
use super::server::Server;

/// Longer than any answer takes; only a hang is longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// One connection, with what was read of it and not yet taken.
pub(crate) struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Server {
    pub(crate) fn connect(&self) -> Connection {
        Connection::of(TcpStream::connect(self.address()).expect("the server accepts"))
    }

    /// Connects from `127.0.0.HOST`, which is another peer for each `HOST`.
    pub(crate) fn connect_from(&self, host: u8) -> Connection {
        Connection::between(host, self.address())
    }

    /// Sends these bytes on a fresh connection and reads one answer.
    #[track_caller]
    pub(crate) fn raw(&self, bytes: impl AsRef<[u8]>) -> Answer {
        let mut connection = self.connect();
        connection.send(bytes);
        connection.answer("GET").expect("an answer")
    }
}

impl Connection {
    fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream.set_nodelay(true).expect("an option");
        Self { stream, read: Vec::new() }
    }

    /// One from `127.0.0.HOST` that the system keeps little of that is not read.
    pub(crate) fn between(host: u8, to: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(16 * 1024).expect("an option");
        socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0)).into()).expect("bound");
        socket.connect(&to.into()).expect("the server accepts");
        Self::of(socket.into())
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // A server that has answered may close before it has read everything.
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Says that nothing more will be sent.
    pub(crate) fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).expect("still open");
    }

    /// Reads more; whether there was any before the end.
    fn more(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(n) => {
                self.read.extend_from_slice(&buffer[..n]);
                true
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => true,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("reading an answer: {error}"),
        }
    }

    /// Takes the bytes up to and including `mark`, or `None` at the end.
    pub(crate) fn take_through(&mut self, mark: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.read.windows(mark.len()).position(|window| window == mark) {
                return Some(self.read.drain(..at + mark.len()).collect());
            }
            if !self.more() {
                return None;
            }
        }
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        while self.read.len() < length {
            assert!(self.more(), "the body ends early: {:?}", String::from_utf8_lossy(&self.read));
        }
        self.read.drain(..length).collect()
    }

    /// Reads the head of an answer, or `None` at the end of the connection.
    #[track_caller]
    pub(crate) fn head(&mut self) -> Option<Answer> {
        let head = self.take_through(b"\r\n\r\n")?;
        let head = String::from_utf8(head).expect("an ASCII head");
        let mut lines = head.trim_end().split("\r\n");
        let first = lines.next().unwrap_or_default();
        let status = first.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5));
        let status = status.and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("not a status line: {first:?}"));
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("header {line:?}"));
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a header's name");
            headers.append(name, HeaderValue::from_str(value.trim()).expect("a header's value"));
        }
        Some(Answer { call: "raw".to_owned(), status, headers, body: Vec::new() })
    }

    /// Reads a whole answer to a request of `method`, or `None` at the end of
    /// the connection.
    #[track_caller]
    pub(crate) fn answer(&mut self, method: &str) -> Option<Answer> {
        let mut answer = self.head()?;
        if method == "HEAD" || matches!(answer.status, 204 | 304) {
            return Some(answer);
        }
        if answer.maybe_header("transfer-encoding").is_some() {
            answer.body = self.chunks();
        } else if let Some(length) = answer.maybe_header("content-length") {
            let length = length.parse().expect("a length");
            answer.body = self.take(length);
        } else {
            while self.more() {}
            answer.body = std::mem::take(&mut self.read);
        }
        Some(answer)
    }

    /// Reads an [`answer`](Self::answer) and checks it by the document.
    #[track_caller]
    pub(crate) fn checked(&mut self, method: &str, path: &str) -> Answer {
        let mut answer = self.answer(method).expect("an answer");
        answer.call = format!("{method} {path}");
        document::check(method, path, &answer);
        answer
    }

    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk() {
            body.extend_from_slice(&chunk);
        }
        body
    }

    /// One chunk of a body that comes in chunks; `None` after the last.
    #[track_caller]
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = self.take_through(b"\r\n").expect("a chunk's size");
        let size = String::from_utf8(size).expect("ASCII");
        let size = usize::from_str_radix(size.trim(), 16).expect("hexadecimal");
        let mut chunk = self.take(size + 2);
        chunk.truncate(size);
        (size > 0).then_some(chunk)
    }

    /// Whether the server closes the connection, with nothing more said.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.read.is_empty() && !self.more()
    }
}
