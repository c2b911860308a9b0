//! The crowd's progress: a bar on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, stdout};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use stage::Heard;

const LINES: usize = 5;

/// Counts the buyers who have an answer.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    answered: AtomicUsize,
    seen: Vec<AtomicBool>,
}

impl Progress {
    pub(crate) fn of(buyers: u32) -> Self {
        let bar = stdout().is_terminal().then(|| {
            let style = "{bar:40} {human_pos} of {human_len} buyers answered";
            let style = ProgressStyle::with_template(style).expect("the template is well formed");
            let target = ProgressDrawTarget::stdout();
            ProgressBar::with_draw_target(Some(u64::from(buyers)), target).with_style(style)
        });
        let seen = (0..buyers).map(|_| AtomicBool::new(false)).collect();
        Self { bar, answered: AtomicUsize::new(0), seen }
    }

    /// Counts each buyer once, however many answers come.
    pub(crate) fn heard(&self, heard: &Heard) {
        if self.seen[heard.buyer as usize].swap(true, Ordering::Relaxed) {
            return;
        }
        let answered = self.answered.fetch_add(1, Ordering::Relaxed) + 1;
        match &self.bar {
            Some(bar) => bar.inc(1),
            None if answered.is_multiple_of(self.seen.len().div_ceil(LINES)) => {
                println!("  {} buyers answered", HumanCount(answered as u64));
            }
            None => {}
        }
    }

    pub(crate) fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.finish();
        }
    }
}
