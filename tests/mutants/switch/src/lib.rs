//! The switch between the mutants of one build.
//!
//! `MUTANT` is the number of the mutant that is on; without it none is. With
//! `MUTANT_REACHED`, a file, the number of every switch that is asked is appended
//! to it once by each process, a line each.

use std::env;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers are below this.
const NUMBERS_MAX: usize = 1 << 16;

static SWITCH: OnceLock<Switch> = OnceLock::new();

struct Switch {
    on: Option<u32>,
    reached: Option<Reached>,
}

struct Reached {
    file: File,
    seen: Vec<AtomicU64>,
}

/// Whether this mutant is on.
pub fn is(number: u32) -> bool {
    let switch = SWITCH.get_or_init(Switch::from_env);
    if let Some(reached) = &switch.reached {
        reached.note(number);
    }
    switch.on == Some(number)
}

impl Switch {
    fn from_env() -> Self {
        let on = env::var("MUTANT").ok().map(|text| text.parse().expect("a number"));
        let reached = env::var_os("MUTANT_REACHED").map(|path| {
            let file = OpenOptions::new().create(true).append(true).open(path);
            let seen = (0..NUMBERS_MAX / 64).map(|_| AtomicU64::new(0)).collect();
            Reached { file: file.expect("the file can be written"), seen }
        });
        Self { on, reached }
    }
}

impl Reached {
    /// Written at once, since a test may kill the process.
    fn note(&self, number: u32) {
        let bit = 1 << (number % 64);
        let word = &self.seen[number as usize / 64];
        if word.load(Ordering::Relaxed) & bit == 0
            && word.fetch_or(bit, Ordering::Relaxed) & bit == 0
        {
            (&self.file).write_all(format!("{number}\n").as_bytes()).expect("it can be written");
        }
    }
}
