//! All integration tests, in one binary.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod cli;
mod crash;
mod fuzz_seeds;
mod harness;
mod layers;
mod lost_packs;
mod program;
mod reader;
