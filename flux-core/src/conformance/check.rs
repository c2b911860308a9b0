//! Checks, their running, and the report that a runner prints.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::seams::SeamError;

/// The time past which a check counts as hanging.
const CHECK_TIME_MAX: Duration = Duration::from_secs(600);
/// The time that a number or a listing that may lag is given to catch up.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// A broken promise of a backend, as a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(String);

impl Failure {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl From<SeamError> for Failure {
    fn from(error: SeamError) -> Self {
        Self(format!("the backend answered: {error}"))
    }
}

pub(super) type Checked<T = ()> = Result<T, Failure>;

/// Fails the check with the message unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::conformance::Failure::new(format!($($message)+)));
        }
    };
}
pub(super) use ensure;

/// Fails unless the two are equal.
pub(super) fn same<T: PartialEq + fmt::Debug>(what: &str, is: &T, should_be: &T) -> Checked {
    ensure!(is == should_be, "{what}: expected {should_be:?}, got {is:?}");
    Ok(())
}

/// Probes until there is success or patience ends.
pub(super) async fn eventually<F, Fut>(probe: F) -> Checked
where
    F: Fn() -> Fut,
    Fut: Future<Output = Checked>,
{
    let end = Instant::now() + PATIENCE;
    loop {
        match probe().await {
            Err(_) if Instant::now() < end => sleep(Duration::from_millis(5)).await,
            result => return result,
        }
    }
}

type Running = Pin<Box<dyn Future<Output = Checked> + Send>>;

/// One check of one promise, to be run on a fresh backend `T`.
#[derive(Debug)]
pub struct Check<T> {
    /// The promise, as a sentence.
    pub name: &'static str,
    /// The guarantee or the method it belongs to: `G1` … `G9`, `reads`, …
    pub guarantee: &'static str,
    pub(super) run: fn(T) -> Running,
}

impl<T: Send + 'static> Check<T> {
    /// Runs the check in a task of its own. Dropping the future stops the
    /// check at its next await.
    ///
    /// # Errors
    /// The promise that the backend broke; a panic and a hang count as such.
    pub async fn run(&self, backend: T) -> Result<(), Failure> {
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn((self.run)(backend));
        match timeout(CHECK_TIME_MAX, tasks.join_next()).await {
            Ok(Some(Ok(result))) => result,
            Ok(Some(Err(error))) => Err(Failure(format!("panicked: {error}"))),
            Ok(None) => unreachable!("one task was spawned"),
            Err(_) => Err(Failure(format!("did not end within {CHECK_TIME_MAX:?}"))),
        }
    }
}

/// Turns async functions into a list of [`Check`]s.
macro_rules! checks {
    ($($guarantee:literal { $($function:path),* $(,)? })*) => {
        vec![$($($crate::conformance::Check {
            name: stringify!($function).rsplit(":").next().unwrap_or_default().trim_ascii(),
            guarantee: $guarantee,
            run: |backend| Box::pin($function(backend)),
        }),*),*]
    };
}
pub(super) use checks;

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckResult {
    /// See [`Check::name`].
    pub name: &'static str,
    /// See [`Check::guarantee`].
    pub guarantee: &'static str,
    /// The failure, if there was one.
    pub result: Result<(), Failure>,
}

/// The results of all checks; its `Display` has a line for each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order they ran.
    pub results: Vec<CheckResult>,
}

impl Report {
    /// The checks that failed.
    pub fn failures(&self) -> impl Iterator<Item = &CheckResult> {
        self.results.iter().filter(|result| result.result.is_err())
    }

    /// Panics with the failures, if there are any.
    ///
    /// # Panics
    /// When a check failed, or none ran.
    pub fn assert_clean(&self) {
        assert!(!self.results.is_empty(), "no check ran");
        let failed = Self { results: self.failures().cloned().collect() };
        assert!(failed.results.is_empty(), "{} checks failed\n{failed}", failed.results.len());
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for CheckResult { name, guarantee, result } in &self.results {
            match result {
                Ok(()) => writeln!(f, "✓ {guarantee:5} {name}")?,
                Err(failure) => writeln!(f, "✗ {guarantee:5} {name}: {failure}")?,
            }
        }
        Ok(())
    }
}

pub(super) async fn run_all<T, F, Fut>(checks: Vec<Check<T>>, fresh: F) -> Report
where
    T: Send + 'static,
    F: Fn() -> Fut,
    Fut: Future<Output = T>,
{
    let mut report = Report::default();
    for check in checks {
        let result = check.run(fresh().await).await;
        let Check { name, guarantee, .. } = check;
        report.results.push(CheckResult { name, guarantee, result });
    }
    report
}
