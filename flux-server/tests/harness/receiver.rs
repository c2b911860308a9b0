//! A receiver of webhooks on loopback, which may be as bad as a test wants.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// How one message is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// It is taken.
    Taken,
    /// It is refused with this status, and these lines of a head.
    Refused(u16, &'static str),
    /// It is taken after a time.
    Late(Duration),
    /// Bytes that are no HTTP.
    Garbage,
    /// The connection is closed without a word.
    HungUp,
}

/// A message as it came.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) path: String,
    pub(crate) id: String,
    pub(crate) timestamp: String,
    pub(crate) signature: String,
    pub(crate) body: Vec<u8>,
    /// Whether it was answered with 200.
    pub(crate) taken: bool,
}

impl Message {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

type Judge = dyn Fn(usize, &Message) -> Reply + Send + Sync;

struct Shared {
    judge: Box<Judge>,
    asked: AtomicUsize,
    messages: Mutex<Vec<Message>>,
    is_away: AtomicBool,
}

/// The receiver. It ends with the test program.
pub(crate) struct Receiver {
    port: u16,
    shared: Arc<Shared>,
}

impl Receiver {
    /// One that answers each message, told how many came before, as `judge` says.
    pub(crate) fn start(judge: impl Fn(usize, &Message) -> Reply + Send + Sync + 'static) -> Self {
        let shared = Arc::new(Shared {
            judge: Box::new(judge),
            asked: AtomicUsize::new(0),
            messages: Mutex::default(),
            is_away: AtomicBool::new(false),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("bound").port();
        listen(listener, Arc::clone(&shared));
        Self { port, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hooks?of=flux", self.port)
    }

    /// Every message that came so far, whatever it was answered.
    pub(crate) fn messages(&self) -> MutexGuard<'_, Vec<Message>> {
        self.shared.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that were taken.
    pub(crate) fn taken(&self) -> Vec<Message> {
        self.messages().iter().filter(|message| message.taken).cloned().collect()
    }

    /// Closes its port and hangs up.
    pub(crate) fn leave(&self) {
        self.shared.is_away.store(true, Ordering::SeqCst);
        // Wakes whoever accepts; an error means that it is closed already.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }

    /// Opens it again.
    pub(crate) fn come_back(&self) {
        let listener = super::until("the port is free", Duration::from_secs(10), || {
            TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).ok()
        });
        self.shared.is_away.store(false, Ordering::SeqCst);
        listen(listener, Arc::clone(&self.shared));
    }
}

fn listen(listener: TcpListener, shared: Arc<Shared>) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            if shared.is_away.load(Ordering::SeqCst) {
                return;
            }
            let Ok(stream) = stream else { continue };
            let shared = Arc::clone(&shared);
            // An error is the sender's hanging up.
            thread::spawn(move || serve(stream, &shared).ok());
        }
    });
}

fn serve(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let header = |name: &str| {
            let named = |line: &&str| {
                line.split_once(':').is_some_and(|(key, _)| key.eq_ignore_ascii_case(name))
            };
            let line = head.lines().find(named);
            line.and_then(|line| line.split_once(": ")).map_or("", |(_, value)| value).to_owned()
        };
        let mut body = vec![0; header("content-length").parse().expect("a length")];
        reader.read_exact(&mut body)?;
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut message = Message {
            path,
            id: header("webhook-id"),
            timestamp: header("webhook-timestamp"),
            signature: header("webhook-signature"),
            body,
            taken: false,
        };
        if shared.is_away.load(Ordering::SeqCst) {
            return Ok(());
        }
        let reply = (shared.judge)(shared.asked.fetch_add(1, Ordering::SeqCst), &message);
        if let Reply::Late(time) = reply {
            thread::sleep(time);
        }
        message.taken = matches!(reply, Reply::Taken | Reply::Late(_));
        shared.messages.lock().unwrap_or_else(PoisonError::into_inner).push(message);
        match reply {
            Reply::Taken | Reply::Late(_) => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
            }
            Reply::Refused(status, lines) => {
                let head = format!("HTTP/1.1 {status} No\r\n{lines}content-length: 0\r\n\r\n");
                stream.write_all(head.as_bytes())?;
            }
            Reply::Garbage => return stream.write_all(b"\x16\x03\x01 what?\r\n\0\r\n\r\n"),
            Reply::HungUp => return Ok(()),
        }
    }
}
