//! What any seam may answer instead of doing its work.

use std::error::Error;
use std::time::Duration;

type Source = Box<dyn Error + Send + Sync>;

/// A seam's failure. Two questions decide what a caller does next:
/// [`can_retry`](Self::can_retry) and [`may_have_applied`](Self::may_have_applied).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeamError {
    /// The service is away or throttles. Nothing took effect.
    #[error("{service} is unavailable; nothing was changed")]
    Unavailable {
        /// Which service.
        service: &'static str,
        /// What it said.
        #[source]
        source: Option<Source>,
    },
    /// No answer, or one that came too late: it may have taken effect.
    #[error("{service} gave no answer; the call may or may not have taken effect")]
    Unknown {
        /// Which service.
        service: &'static str,
        /// What it said.
        #[source]
        source: Option<Source>,
    },
    /// A bound was reached. Nothing took effect.
    #[error("{service} is full; try again in {retry_after:?}")]
    Overloaded {
        /// Which service.
        service: &'static str,
        /// When to come back.
        retry_after: Duration,
    },
    /// The backend can't go on; trying again can't help. A write that met this
    /// may have taken effect.
    #[error("{service} is broken: {reason}")]
    Broken {
        /// Which service.
        service: &'static str,
        /// What is wrong and what to do about it.
        reason: String,
        /// What it said.
        #[source]
        source: Option<Source>,
    },
}

impl SeamError {
    /// [`SeamError::Unavailable`] without a source.
    #[must_use]
    pub fn unavailable(service: &'static str) -> Self {
        Self::Unavailable { service, source: None }
    }

    /// [`SeamError::Unknown`] without a source.
    #[must_use]
    pub fn unknown(service: &'static str) -> Self {
        Self::Unknown { service, source: None }
    }

    /// [`SeamError::Broken`] without a source.
    pub fn broken(service: &'static str, reason: impl Into<String>) -> Self {
        Self::Broken { service, reason: reason.into(), source: None }
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn can_retry(&self) -> bool {
        !matches!(self, Self::Broken { .. })
    }

    /// Whether the call may have taken effect although it failed.
    #[must_use]
    pub fn may_have_applied(&self) -> bool {
        matches!(self, Self::Unknown { .. } | Self::Broken { .. })
    }
}
