//! A small HTTP server and worker that show how Flux is run. What it answers is
//! in `openapi.json`; what it does, an application can do through `flux-core`.
//!
//! | part | module |
//! |---|---|
//! | flags, environment, the items to start with, the backend, an operator's commands | [`setup`] |
//! | connections, from the first byte to the last | [`conn`] |
//! | which call a request is, and the calls | [`api`] |
//! | connections and calls, put together | [`serve`] |
//! | the state that calls share, and the signals that stop it | [`app`], [`shutdown`] |
//! | who may, how often, and how much at once | `auth`, `limit` |
//! | what is told from a copy | `recent`, `listed` |
//! | the log, figures and traces | [`telemetry`] |
//! | Server-Sent Events | `events` |
//! | what is sent to others as it happens | [`webhooks`] |
//! | requests as they are read, answers as they are written | `http` |
//!
//! Imports run one way: `serve` → `api`, `conn` → `app` → `telemetry`, `events`,
//! `auth`, `limit`, `recent`, `webhooks` → `setup` → `http`.

pub mod api;
pub mod app;
mod auth;
pub mod conn;
mod events;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod limit;
mod listed;
mod recent;
pub mod serve;
pub mod setup;
pub mod shutdown;
pub mod telemetry;
pub mod webhooks;
