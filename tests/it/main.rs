//! All integration tests, in one binary.

mod layers;
mod lost_packs;
mod reader;
