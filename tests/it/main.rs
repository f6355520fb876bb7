//! All integration tests, in one binary.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod cli;
mod concurrent_memory;
mod corpus;
mod crash;
mod damage;
mod deltas;
mod docker;
mod flips;
mod fuzz_seeds;
mod groups;
mod harness;
mod images;
mod layers;
mod model;
mod processes;
mod program;
mod reader;
mod regressions;
mod restores;
mod sources;
mod verifying;
