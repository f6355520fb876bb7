//! All integration tests, in one binary.

mod concurrent_memory;
mod crash;

mod harness;
mod layers;
