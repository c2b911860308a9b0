//! Whole sales against the real binary: a crowd that repeats itself, a server
//! that is killed, told to stop or left without room on its disk in the middle,
//! callers who only hold connections, outputs that nobody reads.

// Each test program uses a part of it.
#[allow(dead_code, unused_imports)]
#[path = "../harness/mod.rs"]
mod harness;

mod client;
mod crowd;
mod full_disk;
mod killed;
mod output;
mod patience;
mod stopped;
mod webhooks;
mod whole;

use std::thread;

/// Runs so many threads, numbered, and returns what they do.
fn crowd<T: Send>(size: usize, each: impl Fn(usize) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let each = &each;
        let all: Vec<_> = (0..size).map(|n| scope.spawn(move || each(n))).collect();
        all.into_iter().map(|one| one.join().expect("it does not panic")).collect()
    })
}
