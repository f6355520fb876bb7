//! All integration tests, in one binary.

mod crash;
mod harness;
mod layers;
mod lost_packs;
mod reader;
