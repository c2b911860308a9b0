//! The start: flags, environment, the items to begin with, and the
//! backend.

pub mod admin;
pub mod archives;
#[cfg(feature = "aws")]
mod aws;
pub mod backend;
pub mod catalog;
pub mod config;
pub mod copies;
pub mod dotenv;
pub mod operator_token;
mod origin;
pub(crate) mod public_address;
mod running;
pub mod secret;
pub mod webhook;
pub mod without_effect;
