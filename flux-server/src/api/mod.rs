//! The calls of the contract.

pub(crate) mod dispatch;
mod health;
mod items;
mod legacy;
mod orders;
mod page;
pub mod route;
