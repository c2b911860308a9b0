//! A small HTTP server and worker that show how Flux is run.
