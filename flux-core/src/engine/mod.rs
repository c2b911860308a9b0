//! What an application holds.
