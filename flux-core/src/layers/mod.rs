//! Wrappers over the seams.
