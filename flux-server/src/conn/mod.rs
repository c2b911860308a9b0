//! Connections, from the first byte to the last.

mod hyper_errors;
pub mod server;
mod smuggling;
pub(crate) mod watched_socket;
