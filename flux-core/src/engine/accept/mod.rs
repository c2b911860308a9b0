//! The way of an order in, up to the worker.

pub(super) mod gate;
pub(super) mod gate_sync;
pub(super) mod id_guard;
pub(super) mod inbox;
pub(super) mod queued_spans;
mod repeats;
#[cfg(all(test, shuttle))]
mod shuttle_tests;
mod submit;
pub(super) mod sweep_alarm;
mod together;
pub(super) mod waiters;
