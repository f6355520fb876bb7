//! All integration tests, in one binary.

mod cli;
mod corpus;
mod docker;
mod layers;
mod processes;
mod program;
