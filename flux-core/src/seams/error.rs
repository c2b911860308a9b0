//! The one error of all four seams.

use std::error::Error;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

/// A seam's failure. Two questions decide what a caller does next:
/// [`can_retry`](Self::can_retry) and [`may_have_applied`](Self::may_have_applied).
/// Clones share the source, so everybody whom one failure concerns gets all of it.
///
/// ```
/// use std::error::Error;
/// use std::io;
/// use flux_core::seams::SeamError;
///
/// let full = io::Error::from(io::ErrorKind::StorageFull);
/// let error = SeamError::broken("store", "a write failed; make room").with_source(full);
/// assert_eq!(error.to_string(), "store is broken: a write failed; make room");
/// assert!(error.may_have_applied() && !error.can_retry());
///
/// let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
/// assert_eq!(source.map(io::Error::kind), Some(io::ErrorKind::StorageFull));
///
/// let later = SeamError::stopped("store", "a write failed; make room");
/// assert!(!later.may_have_applied() && !later.can_retry());
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SeamError {
    /// The service is away or throttles; nothing took effect.
    #[error("{service} is unavailable; nothing was changed")]
    Unavailable {
        /// The service's name.
        service: &'static str,
        /// The service's own error.
        #[source]
        source: Option<Source>,
    },
    /// No answer, or one that came too late: it may have taken effect.
    #[error("{service} gave no answer; the call may or may not have taken effect")]
    Unknown {
        /// The service's name.
        service: &'static str,
        /// The service's own error.
        #[source]
        source: Option<Source>,
    },
    /// A bound was reached; nothing took effect.
    #[error("{service} is full; try again in {retry_after:?}")]
    Overloaded {
        /// The service's name.
        service: &'static str,
        /// The time after which to come back.
        retry_after: Duration,
    },
    /// The call met a fault; trying again can't help. A write that met this may
    /// have taken effect.
    #[error("{service} is broken: {reason}")]
    Broken {
        /// The service's name.
        service: &'static str,
        /// The fault, and what to do about it.
        reason: String,
        /// The service's own error.
        #[source]
        source: Option<Source>,
    },
    /// The backend stopped at a fault that an earlier call met, until it is opened anew;
    /// nothing took effect. An engine that gets this from its store or queue has
    /// [failed](crate::Flux::failed).
    #[error("{service} has stopped, and nothing was changed: {reason}")]
    Stopped {
        /// The service's name.
        service: &'static str,
        /// The fault, and what to do about it.
        reason: String,
        /// The error of the call that met the fault.
        #[source]
        source: Option<Source>,
    },
    /// A listing was asked to go on from a cursor that this store did not make.
    /// Trying again can't help; nothing took effect.
    #[error("{service} did not make this cursor; list from the start")]
    UnknownCursor {
        /// The service's name.
        service: &'static str,
    },
    /// A reader of a change feed came so late that changes it did not see are not kept
    /// any more. Trying again can't help; nothing took effect.
    #[error(
        "{service} keeps these changes no more; read what is there now, and go on after the \
         newest change"
    )]
    ChangesGone {
        /// The service's name.
        service: &'static str,
    },
    /// A change feed keeps the cursors of as many consumers as it may. Trying again can't
    /// help until one is forgotten; nothing took effect.
    #[error("{service} keeps the cursors of as many consumers as it may; forget one")]
    TooManyConsumers {
        /// The service's name.
        service: &'static str,
    },
}

/// The error behind a [`SeamError`], shared by its clones. It derefs to that
/// error and is none itself, so that a chain of sources shows it once.
#[derive(Debug, Clone)]
pub struct Source(Arc<dyn Error + Send + Sync>);

impl Deref for Source {
    type Target = dyn Error + Send + Sync;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
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

    /// [`SeamError::Stopped`] without a source.
    pub fn stopped(service: &'static str, reason: impl Into<String>) -> Self {
        Self::Stopped { service, reason: reason.into(), source: None }
    }

    /// The same failure with the error that caused it. [`SeamError::Overloaded`],
    /// [`SeamError::UnknownCursor`], [`SeamError::ChangesGone`] and
    /// [`SeamError::TooManyConsumers`] say all there is to say, and stay as they are.
    #[must_use]
    pub fn with_source(mut self, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        match &mut self {
            Self::Unavailable { source, .. }
            | Self::Unknown { source, .. }
            | Self::Broken { source, .. }
            | Self::Stopped { source, .. } => *source = Some(Source(error.into().into())),
            Self::Overloaded { .. }
            | Self::UnknownCursor { .. }
            | Self::ChangesGone { .. }
            | Self::TooManyConsumers { .. } => {}
        }
        self
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn can_retry(&self) -> bool {
        !matches!(
            self,
            Self::Broken { .. }
                | Self::Stopped { .. }
                | Self::UnknownCursor { .. }
                | Self::ChangesGone { .. }
                | Self::TooManyConsumers { .. }
        )
    }

    /// Whether the call may have taken effect although it failed.
    #[must_use]
    pub fn may_have_applied(&self) -> bool {
        matches!(self, Self::Unknown { .. } | Self::Broken { .. })
    }
}
