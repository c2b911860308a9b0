//! Connections, from the first byte to the last. Who answers their requests is
//! an argument; nothing here knows the calls.

mod hyper_errors;
pub mod server;
pub(crate) mod smuggling;
mod watched_socket;
