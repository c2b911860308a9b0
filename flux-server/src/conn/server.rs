//! Connections: taken, bounded, served, and ended in order.

use std::error::Error;
use std::future::poll_fn;
use std::io::{self, Write};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::Request;
use http_body_util::Either;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::conn::watched_socket::{Busy, FULL, Late, Patience, Quiet, WatchedSocket};
use crate::http::response::Answer;
use crate::limit::{Peer, Peers, Places};
use crate::shutdown::Shutdown;

/// Bytes hyper keeps of one connection. More than a head may have, so that one
/// that is too large is mostly answered as the contract says.
const BUFFER_MAX: usize = 64 * 1024;
/// Connections that wait to be taken.
const BACKLOG: u32 = 4_096;
/// Time that a connection beyond the limits has to ask for what is answered all the same.
const TURNED_AWAY_AFTER: Duration = Duration::from_secs(1);
/// Bytes that the system takes of an answer and can't send yet. With more it would say
/// too rarely how far a slow reader has come.
const UNSENT_MAX: u32 = 64 * 1024;
/// Time for which idle connections of a server that stops are left open, so that
/// requests that are on their way get an answer.
const CLOSING_AFTER: Duration = Duration::from_millis(500);

/// Answers the requests of all connections; a clone serves each.
pub(crate) trait Handler: Clone + Send + Sync + 'static {
    /// Answers a request of `peer`'s. What goes wrong is an answer too.
    fn answer(self, peer: Peer, request: Request<Incoming>) -> impl Future<Output = Answer> + Send;

    /// The same for a connection beyond the limits: it answers what must be answered
    /// all the same, and turns away what is not.
    #[must_use]
    fn turning_away(self) -> Self;

    /// Takes note of a new connection, which is open until the result is dropped.
    fn open(&self) -> impl Sized + Send;
}

/// The limits of connections.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Those who are connected.
    pub(crate) peers: Arc<Peers>,
    /// Connections at once.
    pub(crate) connections: Arc<Places>,
    /// Connections beyond those at once; more are told so, and closed unheard.
    pub(crate) turned_away: Arc<Places>,
    /// Time a request's head may take.
    pub(crate) head: Duration,
    /// Time a connection may be idle.
    pub(crate) idle: Duration,
}

impl Limits {
    /// The times of a connection within the limits.
    #[must_use]
    pub(crate) fn patience(&self) -> Patience {
        Patience { head: self.head, idle: self.idle, late: Late::Head }
    }

    fn little_patience(&self) -> Patience {
        let short = |time: Duration| time.min(TURNED_AWAY_AFTER);
        Patience { head: short(self.head), idle: short(self.idle), late: Late::TurnedAway }
    }
}

/// Listens on an address.
///
/// # Errors
/// When it can't be had.
pub fn listen(address: std::net::SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    #[cfg(any(target_os = "android", target_os = "linux"))]
    SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT_MAX)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until `shutdown` drains and every connection has ended; idle ones are
/// told to, by `shutdown`, shortly after. Dropping the future ends what is left.
pub(crate) async fn serve<H: Handler>(
    handler: H,
    limits: Limits,
    shutdown: Arc<Shutdown>,
    listener: TcpListener,
) {
    let mut connections = JoinSet::new();
    let take = |accepted: TcpStream, peer: IpAddr, connections: &mut JoinSet<()>| {
        // Answers are small and complete: there is nothing to wait for.
        if let Err(error) = accepted.set_nodelay(true) {
            debug!(%error, "a connection was gone at once");
        }
        let peer = limits.peers.of(peer);
        let (handler, patience, place) = if let Some(place) = limits.connections.take(&peer) {
            (handler.clone(), limits.patience(), place)
        } else if let Some(place) = limits.turned_away.take(&peer) {
            (handler.clone().turning_away(), limits.little_patience(), place)
        } else {
            return turn_away(accepted);
        };
        let shutdown = Arc::clone(&shutdown);
        connections.spawn(async move {
            connection(handler, patience, shutdown, accepted, peer).await;
            drop(place);
        });
    };
    let draining = shutdown.draining();
    tokio::pin!(draining);
    loop {
        tokio::select! {
            () = &mut draining => break,
            accepted = listener.accept() => match accepted {
                Ok((accepted, peer)) => take(accepted, peer.ip(), &mut connections),
                Err(error) => recover(&error).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    let waiting = stop_listening(listener).unwrap_or_else(|error| {
        warn!(%error, "those who waited to be accepted were not");
        Vec::new()
    });
    for (accepted, peer) in waiting {
        take(accepted, peer, &mut connections);
    }
    let closing = async {
        tokio::time::sleep(CLOSING_AFTER).await;
        shutdown.start_closing();
    };
    tokio::join!(closing, async { while connections.join_next().await.is_some() {} });
}

/// Serves one connection to its end.
pub(crate) async fn connection<H, S>(
    handler: H,
    patience: Patience,
    shutdown: Arc<Shutdown>,
    socket: S,
    peer: Peer,
) where
    H: Handler,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let _open = handler.open();
    let (busy, quiet) = (Busy::default(), Quiet::default());
    let mut socket = WatchedSocket::new(socket, patience, busy.clone(), quiet.clone());
    let closing = shutdown.closing();
    tokio::pin!(closing);
    let address = peer.address();
    // hyper keeps some 20 KB for each connection. So it has those that are not quiet.
    let ended: Result<(), Box<dyn Error>> = loop {
        let stirs = poll_fn(|context| match closing.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Ok(())),
            Poll::Pending => socket.poll_stir(context),
        });
        if let Err(error) = stirs.await {
            break Err(error.into());
        }
        let (service, peer, busy) = (handler.clone(), peer.clone(), busy.clone());
        let answer = service_fn(move |request| {
            let (handler, peer, answering) = (service.clone(), peer.clone(), busy.start());
            async move {
                let mut answer = handler.answer(peer, request).await;
                if let Either::Right(stream) = answer.body_mut() {
                    stream.keep(answering);
                }
                Ok::<_, std::convert::Infallible>(answer)
            }
        });
        let mut http = http1::Builder::new();
        // The socket has times of its own. Who sends no more may still listen; that
        // nobody does shows a write or two later, and a stream writes every 15 s.
        // In one buffer, as hyper would put its answer to a garbled request before
        // a body that waits in its list of buffers.
        http.header_read_timeout(None).max_buf_size(BUFFER_MAX).half_close(true).writev(false);
        let mut serving = http.serve_connection(TokioIo::new(socket), answer);
        let mut told = false;
        let served = poll_fn(|context| {
            // It was polled above, and so wakes this task; each poll takes a lock that all
            // connections share.
            if !told && shutdown.is_closing() {
                told = true;
                Pin::new(&mut serving).graceful_shutdown();
            }
            match Pin::new(&mut serving).poll(context) {
                Poll::Pending if quiet.is() && !told => Poll::Ready(None),
                served => served.map(Some),
            }
        });
        match served.await {
            Some(served) => break served.map_err(Into::into),
            None => {
                let parts = serving.into_parts();
                socket = parts.io.into_inner();
                socket.put_back(&parts.read_buf);
            }
        }
    };
    if let Err(error) = ended {
        debug!(peer = %address, error = %Chain(&*error), "a connection broke off");
    }
}

/// Tells a connection that there are too many, unheard.
fn turn_away(socket: TcpStream) {
    // Nothing was written to it yet, so there is room for this.
    if let Err(error) = socket.into_std().and_then(|mut socket| socket.write(FULL)) {
        debug!(%error, "nobody heard that there are too many connections");
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Recovers from a failure to accept: one connection's is nobody else's, and any
/// other may pass.
async fn recover(error: &io::Error) {
    if !is_of_one_connection(error) {
        warn!(%error, "no connection could be taken; trying again in 100 ms");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Closes the listener, and returns those who had connected: they are served,
/// not reset. The system is asked itself, as the runtime hears of connections
/// only by and by.
fn stop_listening(listener: TcpListener) -> io::Result<Vec<(TcpStream, IpAddr)>> {
    let listener = listener.into_std()?;
    let mut accepted = Vec::new();
    loop {
        match listener.accept() {
            Ok((stream, peer)) => accepted.push((stream, peer.ip())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => return Err(error),
        }
    }
    drop(listener);
    let known_to_tokio = |(stream, peer): (std::net::TcpStream, IpAddr)| {
        stream.set_nonblocking(true)?;
        Ok((TcpStream::from_std(stream)?, peer))
    };
    accepted.into_iter().map(known_to_tokio).collect()
}

/// An error with its causes.
struct Chain<'e>(&'e dyn Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
