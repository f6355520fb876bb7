//! All integration tests, in one binary.

mod cli;
mod crash;
mod fuzz_seeds;
mod harness;
mod layers;
mod lost_packs;
mod program;
mod reader;
