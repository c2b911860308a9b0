//! The way of the log to standard error. Whoever logs only adds to a bounded
//! buffer, which a thread of its own writes: a reader that has stopped costs lines,
//! which are counted, and no time. (`tracing-appender` is not used, as its guard
//! prints to standard output when the reader has stopped.)

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::warn;

/// Most bytes that wait to be written.
const WAITING_MAX: usize = 1 << 20;
/// Pause before a descriptor that somebody made non-blocking is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(10);

static LOG: LazyLock<&'static Log> = LazyLock::new(|| {
    let log: &'static Log = Box::leak(Box::default());
    // A descriptor of its own: the lock of `io::stderr` would be held while it blocks.
    let file = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    let writer = thread::Builder::new().name("log".into());
    let started = file.and_then(|file| writer.spawn(move || log.run(file)));
    started.expect("a process that starts has a descriptor and a thread to spare");
    log
});

/// Adds lines to the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        LOG.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits until all lines are written, for `longest` at most.
pub(super) fn flush(longest: Duration) {
    let empty = |lines: &mut Lines| lines.is_writing || !lines.waiting.is_empty();
    // In time or not, the process ends.
    let _ = LOG.written.wait_timeout_while(LOG.lock(), longest, empty);
}

#[derive(Debug, Default)]
struct Log {
    lines: Mutex<Lines>,
    filled: Condvar,
    written: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    waiting: Vec<u8>,
    is_writing: bool,
    /// Lines lost since that was last told.
    lost: u64,
}

impl Log {
    fn push(&self, line: &[u8]) {
        let mut lines = self.lock();
        if lines.waiting.len() + line.len() > WAITING_MAX {
            lines.lose(1);
            return;
        }
        lines.waiting.extend_from_slice(line);
        self.filled.notify_one();
    }

    fn run(&self, mut to: impl Write) {
        let mut batch = Vec::new();
        loop {
            self.next_batch(&mut batch);
            match write_all(&mut to, &batch) {
                Ok(()) => self.tell_lost(),
                Err(_) => {
                    let lines = batch.iter().filter(|byte| **byte == b'\n').count();
                    self.lock().lose(lines as u64);
                }
            }
        }
    }

    /// Waits for lines, and puts all there are in `batch`.
    fn next_batch(&self, batch: &mut Vec<u8>) {
        batch.clear();
        let mut lines = self.lock();
        lines.is_writing = false;
        if lines.waiting.is_empty() {
            self.written.notify_all();
        }
        let empty = |lines: &mut Lines| lines.waiting.is_empty();
        let mut lines =
            self.filled.wait_while(lines, empty).unwrap_or_else(PoisonError::into_inner);
        lines.is_writing = true;
        std::mem::swap(&mut lines.waiting, batch);
    }

    /// Says how many lines were lost, once there is room to.
    fn tell_lost(&self) {
        let lost = {
            let mut lines = self.lock();
            if lines.waiting.len() > WAITING_MAX / 2 {
                return;
            }
            std::mem::take(&mut lines.lost)
        };
        if lost > 0 {
            warn!("{lost} lines of the log were lost, as they were not read in time");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        // Each change is whole before anything can panic.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn lose(&mut self, lines: u64) {
        self.lost += lines;
        metrics::counter!("flux_log_lines_lost_total").increment(lines);
    }
}

fn write_all(to: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(FULL_PAUSE),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
