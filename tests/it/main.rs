//! All integration tests, in one binary.

mod concurrent_memory;
mod crash;
mod damage;
mod flips;

mod harness;
mod layers;
mod model;
mod sources;
