//! Runs the real binary in a directory of its own and talks to it over
//! loopback; every answer is checked by openapi.json.

mod call;
mod document;
mod raw;
mod receiver;
mod server;

pub(crate) use call::{Answer, Call};
pub(crate) use document::{DOCUMENT, check, matches};
pub(crate) use raw::Connection;
pub(crate) use receiver::{Message, Receiver, Reply};
pub(crate) use server::{OPERATOR, Server, Setup, until};
