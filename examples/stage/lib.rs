//! What the examples and the whole-story tests share.
