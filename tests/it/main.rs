//! All integration tests, in one binary.

mod cli;
mod crash;
mod harness;
mod layers;
mod lost_packs;
mod program;
mod reader;
