//! What a start needs: flags, environment, the items to begin with, and the
//! backend.

pub mod admin;
pub mod backend;
pub mod catalog;
pub mod config;
mod dotenv;
