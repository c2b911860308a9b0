//! A client with one keep-alive connection, that tells exactly how an exchange
//! ended when it was not with an answer.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Longer than any answer takes; only a hang is longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The reason that there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Nobody listens, or nobody took the new connection from the system
    /// before the listener was closed.
    Refused,
    /// The connection was ended in good order before the answer began.
    Closed,
    /// It was reset.
    Reset,
    /// The answer broke off.
    Cut,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// The order in a 2xx, or the one a 409 decided on.
    pub(crate) fn order(&self) -> Option<Value> {
        let mut json = self.json();
        match self.status {
            200..=299 => Some(json),
            _ => json.get_mut("order").map(Value::take),
        }
    }

    /// A header, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let named = |line: &'_ str| line.split_once(": ").is_some_and(|(n, _)| n == name);
        self.head.lines().find(|line| named(line)).map(|line| &line[name.len() + 2..])
    }

    fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }
}

/// It connects when it has something to send, and again once it was hung up on.
#[derive(Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    /// Hangs up.
    pub(crate) fn leave(&mut self) {
        self.stream = None;
    }

    pub(crate) fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Result<Answer, Lost> {
        self.send(head("GET", path, headers).as_bytes())
    }

    pub(crate) fn post(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Result<Answer, Lost> {
        let body = body.to_string();
        let length = body.len().to_string();
        let of_body = [("Content-Type", "application/json"), ("Content-Length", length.as_str())];
        let request = head("POST", path, &[headers, &of_body].concat()) + &body;
        self.send(request.as_bytes())
    }

    /// Sends a whole request and reads its answer.
    pub(crate) fn send(&mut self, request: &[u8]) -> Result<Answer, Lost> {
        let answered = self.exchange(request);
        if answered.as_ref().map_or(true, Answer::closes) {
            self.stream = None;
        }
        answered
    }

    fn exchange(&mut self, request: &[u8]) -> Result<Answer, Lost> {
        let (stream, known) = match &mut self.stream {
            Some(stream) => (stream, true),
            None => (self.stream.insert(connect(self.address)?), false),
        };
        let lost = |error: std::io::Error| match why(&error) {
            Lost::Reset if !known => Lost::Refused,
            lost => lost,
        };
        stream.get_ref().write_all(request).map_err(lost)?;
        let mut head = String::new();
        let first = stream.read_line(&mut head).map_err(lost)?;
        if first == 0 {
            return Err(Lost::Closed);
        }
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).map_err(|_| Lost::Cut)? == 0 {
                return Err(Lost::Cut);
            }
        }
        let status = head.get(9..12).and_then(|status| status.parse().ok()).ok_or(Lost::Cut)?;
        let mut answer = Answer { status, head, body: Vec::new() };
        match answer.header("content-length") {
            Some(length) => {
                answer.body.resize(length.parse().expect("a length"), 0);
                stream.read_exact(&mut answer.body).map_err(|_| Lost::Cut)?;
            }
            None => read_chunks(stream, &mut answer.body).map_err(|_| Lost::Cut)?,
        }
        Ok(answer)
    }
}

fn connect(address: SocketAddr) -> Result<BufReader<TcpStream>, Lost> {
    let stream = TcpStream::connect(address).map_err(|error| why(&error))?;
    stream.set_nodelay(true).expect("an option");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    Ok(BufReader::new(stream))
}

fn read_chunks(stream: &mut impl BufRead, body: &mut Vec<u8>) -> std::io::Result<()> {
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let size = usize::from_str_radix(line.trim_end(), 16).map_err(std::io::Error::other)?;
        let start = body.len();
        body.resize(start + size + 2, 0);
        stream.read_exact(&mut body[start..])?;
        body.truncate(start + size);
        if size == 0 {
            return Ok(());
        }
    }
}

#[track_caller]
fn why(error: &std::io::Error) -> Lost {
    match error.kind() {
        ErrorKind::ConnectionRefused => Lost::Refused,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Lost::Reset,
        _ => panic!("{error}"),
    }
}

fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: flux\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head + "\r\n"
}
