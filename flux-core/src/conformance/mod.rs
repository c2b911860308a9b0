//! The suite every backend is held to.
