//! The calls of the contract: which one a request is, and the handler of each.

pub(crate) mod admin;
pub(crate) mod archives;
pub(crate) mod backup;
mod batch;
mod call;
mod changes;
mod cors;
pub(crate) mod dispatch;
pub(crate) mod door;
mod health;
mod items;
mod legacy;
mod orders;
mod page;
pub mod route;
mod webhooks;
