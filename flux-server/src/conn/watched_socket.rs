//! The socket under hyper: it ends what takes too long, and passes on no
//! request whose end is in doubt.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::conn::hyper_errors;
use crate::conn::smuggling::Boundaries;

/// Time a peer may go on sending after its connection was ended.
const LINGER: Duration = Duration::from_secs(1);

/// Time without a request after which a connection is quiet.
const QUIET_AFTER: Duration = Duration::from_millis(500);
/// Bytes that a quiet connection is heard by.
const FIRST_BYTES: usize = 512;

/// Time that a peer may take over a part of an answer, however slowly it reads.
const READS_WITHIN: Duration = Duration::from_secs(10);
/// Bytes a second that a peer must read beyond that.
const READS_AT_LEAST: u64 = 8 * 1024;

const LATE: &[u8] = b"HTTP/1.1 408 Request Timeout\r\n\
    content-type: application/problem+json\r\ncontent-length: 118\r\nconnection: close\r\n\r\n\
    {\"type\":\"/problems/request-timeout\",\"title\":\"Request timeout\",\"status\":408,\
    \"detail\":\"the head did not arrive in time\"}";

/// The answer to a connection that is one too many.
pub(super) const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/problem+json\r\ncontent-length: 121\r\n\
    retry-after: 1\r\nconnection: close\r\n\r\n\
    {\"type\":\"/problems/unavailable\",\"title\":\"Unavailable\",\"status\":503,\
    \"detail\":\"too many connections; nothing was accepted\"}";

/// Times after which a connection is ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Time from the first byte of a head to its last.
    pub(crate) head: Duration,
    /// Time from an answer to the next head.
    pub(crate) idle: Duration,
    /// What is said to who takes too long.
    pub(crate) late: Late,
}

/// What a connection is told when it ends because no head came in time.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Late {
    /// That its head took too long, if it began one.
    Head,
    /// That there are too many connections.
    TurnedAway,
}

/// A flag that a request is being answered: then nothing is late.
#[derive(Debug, Clone, Default)]
pub(crate) struct Busy(Arc<AtomicBool>);

/// A mark that the connection is busy, until it is dropped.
#[derive(Debug)]
pub(crate) struct Answering(Arc<AtomicBool>);

impl Busy {
    /// Marks the connection as busy until the result is dropped.
    #[must_use]
    pub(crate) fn start(&self) -> Answering {
        self.0.store(true, Ordering::Release);
        Answering(Arc::clone(&self.0))
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A flag that a connection has had no request for a while, and nothing of an answer is
/// left to write: who reads and writes for it may give up its buffers.
#[derive(Debug, Clone)]
pub(crate) struct Quiet(Arc<AtomicBool>);

impl Default for Quiet {
    /// A connection before its first request.
    fn default() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }
}

impl Quiet {
    /// Whether it is quiet.
    pub(crate) fn is(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self, is_quiet: bool) {
        self.0.store(is_quiet, Ordering::Release);
    }
}

/// A socket that ends what takes too long.
#[derive(Debug)]
pub(crate) struct WatchedSocket<S> {
    socket: S,
    patience: Patience,
    busy: Busy,
    quiet: Quiet,
    boundaries: Boundaries,
    /// Bytes that were read, and whoever reads has not had.
    ahead: Vec<u8>,
    /// Bytes that go out instead of what was to be written, and how many went.
    instead: Option<(Vec<u8>, usize)>,
    head_since: Option<Instant>,
    wrote_at: Instant,
    /// Whether all of an answer was written since the connection was quiet, and nothing
    /// is left to flush.
    answered: bool,
    unflushed: bool,
    /// The part of an answer that the peer has not taken all of.
    behind: Option<Behind>,
    alarm: Pin<Box<Sleep>>,
    /// Whether the alarm wakes this task.
    armed: bool,
    /// Whether the peer sends no more.
    ended: bool,
    lingers: bool,
}

/// A part of an answer that is on its way for longer than it takes to write.
#[derive(Debug, Clone, Copy)]
struct Behind {
    since: Instant,
    taken: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WatchedSocket<S> {
    /// Watches `socket`.
    pub(crate) fn new(socket: S, patience: Patience, busy: Busy, quiet: Quiet) -> Self {
        let now = Instant::now();
        Self {
            socket,
            patience,
            busy,
            quiet,
            boundaries: Boundaries::new(),
            ahead: Vec::new(),
            instead: None,
            // A connection is made to send something.
            head_since: Some(now),
            wrote_at: now,
            answered: false,
            unflushed: false,
            behind: None,
            // Never later than the next deadline there may be.
            alarm: Box::pin(sleep_until(now + patience.head.min(patience.idle))),
            armed: false,
            ended: false,
            lingers: false,
        }
    }

    /// The moment from which the peer is late; none while it waits for us.
    fn deadline(&self) -> Option<Instant> {
        match self.head_since {
            _ if self.busy.0.load(Ordering::Acquire) => None,
            Some(since) => Some(since + self.patience.head),
            None => Some(self.wrote_at + self.patience.idle),
        }
    }

    /// The moment from which the connection is quiet; none while it is not to be, or is.
    fn quiet_at(&self) -> Option<Instant> {
        let may_be = self.answered
            && self.boundaries.is_between_requests()
            && !self.busy.0.load(Ordering::Acquire);
        may_be.then(|| self.wrote_at + QUIET_AFTER)
    }

    /// Polls while there is nothing to read: for the peer to be late, or quiet.
    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if let Some(at) = self.quiet_at()
            && self.poll_alarm(context, Some(at)).is_ready()
        {
            self.answered = false;
            self.quiet.set(true);
        }
        let deadline = self.deadline();
        self.poll_alarm(context, deadline).map(|()| io::ErrorKind::TimedOut.into())
    }

    /// Polls for a moment to come. Moving the alarm with each request
    /// would cost more than all else here, so one that is set too early rings
    /// in vain, and is then moved.
    fn poll_alarm(&mut self, context: &mut Context<'_>, until: Option<Instant>) -> Poll<()> {
        if let Some(until) = until
            && self.alarm.deadline() > until
        {
            self.alarm.as_mut().reset(until);
            self.armed = false;
        }
        if self.armed && !self.alarm.is_elapsed() {
            return Poll::Pending;
        }
        while self.alarm.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            if until.is_some_and(|until| until <= now) {
                return Poll::Ready(());
            }
            self.alarm.as_mut().reset(until.unwrap_or(now + self.patience.idle));
        }
        self.armed = true;
        Poll::Pending
    }

    /// Waits for the peer to send something, in little memory: whoever reads gets it
    /// then. At the end of what it sends too. Cancel-safe.
    pub(crate) fn poll_stir(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            let mut first = [MaybeUninit::uninit(); FIRST_BYTES];
            let mut first = ReadBuf::uninit(&mut first);
            ready!(Pin::new(&mut *self).poll_read(context, &mut first))?;
            self.ahead.extend_from_slice(first.filled());
        }
        self.quiet.set(false);
        Poll::Ready(Ok(()))
    }

    /// Takes back what was read and not used.
    pub(crate) fn put_back(&mut self, bytes: &[u8]) {
        self.ahead.splice(..0, bytes.iter().copied());
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WatchedSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let here = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.ahead[..here]);
            self.ahead = self.ahead.split_off(here);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        match Pin::new(&mut self.socket).poll_read(context, buffer) {
            Poll::Ready(Ok(())) => {
                let new = &mut buffer.filled_mut()[before..];
                self.ended = new.is_empty();
                self.boundaries.pass(new);
                if !self.boundaries.is_within_a_head() {
                    self.head_since = None;
                } else if self.head_since.is_none() {
                    self.head_since = Some(Instant::now());
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => {
                self.ended = true;
                Poll::Ready(Err(error))
            }
            Poll::Pending => {
                let late = self.poll_idle(context);
                if late.is_ready()
                    && self.behind.is_none()
                    && let Some(told) = self.told_when_late()
                {
                    // Everything is written, so there is room for this.
                    let _ = Pin::new(&mut self.socket).poll_write(context, told);
                }
                late.map(Err)
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WatchedSocket<S> {
    fn wrote(
        &mut self,
        context: &mut Context<'_>,
        wrote: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let now = Instant::now();
        (self.answered, self.unflushed) = (false, true);
        match wrote {
            Poll::Ready(wrote) => {
                self.wrote_at = now;
                if let (Some(behind), Ok(new)) = (&mut self.behind, &wrote) {
                    behind.taken += *new as u64;
                }
                Poll::Ready(wrote)
            }
            Poll::Pending => {
                let behind = *self.behind.get_or_insert(Behind { since: now, taken: 0 });
                let read_in = Duration::from_secs(behind.taken) / READS_AT_LEAST as u32;
                let deadline = behind.since + READS_WITHIN.min(self.patience.idle) + read_in;
                self.poll_alarm(context, Some(deadline))
                    .map(|()| Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }

    fn told_when_late(&self) -> Option<&'static [u8]> {
        match self.patience.late {
            Late::Head => self.boundaries.is_within_a_head().then_some(LATE),
            Late::TurnedAway => Some(FULL),
        }
    }

    /// Writes another answer where hyper gives one of its own: `None` where it
    /// doesn't, else how many of `bytes` count as written.
    fn write_instead(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Option<Poll<io::Result<usize>>> {
        if self.instead.is_none() {
            let answer =
                hyper_errors::instead_of(bytes, self.boundaries.is_within_a_request_line())?;
            self.instead = Some((answer, 0));
        }
        while let Some((answer, sent)) = &mut self.instead
            && *sent < answer.len()
        {
            let wrote = Pin::new(&mut self.socket).poll_write(context, &answer[*sent..]);
            match wrote {
                Poll::Ready(Ok(new)) if new > 0 => *sent += new,
                Poll::Ready(Ok(_)) => return Some(Poll::Ready(Ok(0))),
                wrote => return Some(self.wrote(context, wrote)),
            }
        }
        self.instead = None;
        Some(self.wrote(context, Poll::Ready(Ok(bytes.len()))))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WatchedSocket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(wrote) = self.write_instead(context, bytes) {
            return wrote;
        }
        let wrote = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.wrote(context, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [only] = parts
            && let Some(wrote) = self.write_instead(context, only)
        {
            return wrote;
        }
        let wrote = Pin::new(&mut self.socket).poll_write_vectored(context, parts);
        self.wrote(context, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // All there is to write was written.
        self.behind = None;
        ready!(Pin::new(&mut self.socket).poll_flush(context))?;
        self.answered |= std::mem::take(&mut self.unflushed);
        Poll::Ready(Ok(()))
    }

    /// Ends the connection in a way that lets the peer read its last answer: a
    /// socket that is closed with bytes unread is reset.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.lingers {
            ready!(Pin::new(&mut self.socket).poll_shutdown(context))?;
            self.lingers = true;
            self.alarm.as_mut().reset(Instant::now() + LINGER);
        }
        let mut unread = [MaybeUninit::uninit(); 4 * 1024];
        while !self.ended && self.alarm.as_mut().poll(context).is_pending() {
            let mut unread = ReadBuf::uninit(&mut unread);
            ready!(Pin::new(&mut self.socket).poll_read(context, &mut unread))?;
            self.ended = unread.filled().is_empty();
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Patience =
        Patience { head: Duration::from_secs(1), idle: Duration::from_secs(60), late: Late::Head };

    /// The bytes that a peer that takes too long over a head is sent after the first 500
    /// bytes, where so many were to be written before.
    async fn told_when_late(before: usize) -> Vec<u8> {
        let (ours, mut peer) = duplex(1_000);
        let mut watched = WatchedSocket::new(ours, PATIENCE, Busy::default(), Quiet::default());
        peer.write_all(b"GET / HT").await.expect("room");
        let written = vec![b'x'; before];
        let writing = tokio::time::timeout(Duration::from_millis(1), watched.write_all(&written));
        assert_eq!(writing.await.is_ok(), before < 1_000);
        peer.read_exact(&mut [0; 500]).await.expect("so many");
        let mut head = Vec::new();
        let late = watched.read_to_end(&mut head).await.expect_err("it never ends");
        assert_eq!((late.kind(), &head[..]), (io::ErrorKind::TimedOut, &b"GET / HT"[..]));
        drop(watched);
        let mut told = Vec::new();
        peer.read_to_end(&mut told).await.expect("its end");
        told
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_late_is_told_unless_another_answer_is_not_out_yet() {
        assert_eq!(told_when_late(500).await, LATE);
        assert_eq!(told_when_late(2_000).await, [b'x'; 500]);
    }

    /// What becomes of an answer of a megabyte to a peer that reads so much a second,
    /// and after how many seconds.
    async fn answered(read_in_a_second: usize) -> (Result<(), io::ErrorKind>, u64) {
        let (ours, mut peer) = duplex(16 * 1024);
        let mut watched = WatchedSocket::new(ours, PATIENCE, Busy::default(), Quiet::default());
        let started = Instant::now();
        let writing = async {
            for _ in 0..16 {
                watched.write_all(&[b'x'; 64 * 1024]).await?;
                watched.flush().await?;
            }
            Ok(())
        };
        let reading = async {
            let mut read = vec![0; read_in_a_second];
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                peer.read_exact(&mut read).await.expect("more");
            }
        };
        let written = tokio::select! {
            written = writing => written,
            () = reading => unreachable!("it goes on"),
        };
        (written.map_err(|error: io::Error| error.kind()), started.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_too_slowly_is_cut_off() {
        assert_eq!(answered(0).await, (Err(io::ErrorKind::TimedOut), 10));
        assert_eq!(answered(1_024).await, (Err(io::ErrorKind::TimedOut), 11));
        let (answered, seconds) = answered(8 * 1_024).await;
        assert!(answered.is_ok() && seconds > 60, "{answered:?} after {seconds} s");
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_its_answer_and_asks_no_more_is_quiet_till_it_stirs() {
        let (ours, mut peer) = duplex(1_000);
        let (busy, quiet) = (Busy::default(), Quiet::default());
        let mut watched = WatchedSocket::new(ours, PATIENCE, busy.clone(), quiet.clone());
        let mut read = [0; 100];
        for request in
            [&b"GET / HTTP/1.1\r\n\r\n"[..], b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n"]
        {
            let stirs = std::future::poll_fn(|context| watched.poll_stir(context));
            assert!(timeout(Duration::from_millis(900), stirs).await.is_err(), "nobody sends");
            peer.write_all(request).await.expect("room");
            std::future::poll_fn(|context| watched.poll_stir(context)).await.expect("it stirs");
            assert!(!quiet.is());
            let answering = busy.start();
            let len = watched.read(&mut read).await.expect("what it sent");
            assert_eq!(&read[..len], request);
            watched.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("room");
            watched.flush().await.expect("written");
            // It may be more than this.
            let goes_on = timeout(Duration::from_secs(5), watched.read(&mut read)).await;
            assert!(goes_on.is_err() && !quiet.is());
            drop(answering);
            peer.read_exact(&mut [0; 19]).await.expect("the answer");
            let goes_on = timeout(Duration::from_millis(499), watched.read(&mut read)).await;
            assert!(goes_on.is_err());
            let has_ended = request.starts_with(b"GET");
            assert_eq!(quiet.is(), has_ended, "the other's body is to come");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_one_too_many_is_told_so_without_a_word() {
        for said in ["", "GET / HT"] {
            let (ours, mut peer) = duplex(1_000);
            let patience = Patience { late: Late::TurnedAway, ..PATIENCE };
            let mut watched = WatchedSocket::new(ours, patience, Busy::default(), Quiet::default());
            peer.write_all(said.as_bytes()).await.expect("room");
            let late = watched.read_to_end(&mut Vec::new()).await.expect_err("it never ends");
            assert_eq!(late.kind(), io::ErrorKind::TimedOut);
            drop(watched);
            let mut told = Vec::new();
            peer.read_to_end(&mut told).await.expect("its end");
            assert_eq!(told, FULL);
        }
    }
}
