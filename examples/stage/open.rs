//! The two ways the examples open a sale.

use std::path::Path;

use flux_core::Flux;
