//! A small HTTP server and worker that show how Flux is run. What it answers is
//! in `openapi.json`; what it does, an application can do through `flux-core`.
//!
//! | part | file |
//! |---|---|
//! | flags, environment, the items to start with | `config`, `dotenv`, `catalog` |
//! | where orders live, and what an operator has done there | `backend`, `chores` |
//! | connections, from the first byte to the last | `server`, `wire`, `framing`, `refusal` |
//! | one request: its id, limits, and which call it is | `service`, `route`, `app` |
//! | who may, and how often | `auth`, `limit` |
//! | the log, figures and traces | `telemetry` |
//! | the calls | `orders`, `items`, `first`, `events`, `ops` |
//! | the live page | `page` |
//! | what is read and written | `json`, `query`, `prefer`, `cursor`, `time`, `body`, `answer`, `problem` |

mod answer;
pub mod app;
mod auth;
pub mod backend;
mod body;
pub mod catalog;
pub mod chores;
pub mod config;
mod cursor;
mod dotenv;
mod events;
mod first;
mod framing;
mod items;
mod json;
mod limit;
mod ops;
mod orders;
mod page;
mod prefer;
mod problem;
mod query;
mod refusal;
pub mod route;
pub mod server;
mod service;
pub mod telemetry;
mod time;
mod wire;
