//! All integration tests, in one binary.

mod cli;
mod concurrent_memory;
mod corpus;
mod crash;
mod docker;
mod fuzz_seeds;
mod harness;
mod layers;
mod lost_packs;
mod processes;
mod program;
mod reader;
mod regressions;
