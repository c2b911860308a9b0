//! Connections, from the first byte to the last. Who answers their requests is
//! an argument; nothing here knows the calls.

mod hyper_errors;
pub mod server;
mod smuggling;
mod watched_socket;
