//! All integration tests, in one binary.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod fuzz_seeds;
mod layers;
mod reader;
