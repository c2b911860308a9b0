//! The locks, cells and wake-ups of the parts in which tasks wait for each other: those of
//! the standard library and tokio. Tests that are built with `--cfg shuttle` get stand-ins
//! in their place, and run these parts by thousands of schedules (`tests/shuttle`).

#[cfg(not(all(test, shuttle)))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize};
#[cfg(not(all(test, shuttle)))]
pub(crate) use std::sync::{Mutex, MutexGuard, OnceLock};
#[cfg(not(all(test, shuttle)))]
pub(crate) use tokio::sync::{Notify, futures::Notified};
#[cfg(not(all(test, shuttle)))]
pub(crate) use tokio::time::timeout_at;

#[cfg(all(test, shuttle))]
pub(crate) mod stand_ins;
#[cfg(all(test, shuttle))]
pub(crate) use stand_ins::{
    AtomicBool, AtomicUsize, Mutex, MutexGuard, Notified, Notify, OnceLock, timeout_at,
};
