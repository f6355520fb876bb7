//! icecore keeps snapshots of Docker volumes and directories: content-addressed, incremental, encrypted.
//!
//! The modules in the order of the data path; a module uses only those of lower rank (`tests/it/layers.rs`):
//!
//! ```text
//! rank 0  error clock progress model            nouns, no I/O
//! rank 1  source -> chunk -> seal -> pack -> storage, index          stages and seams
//!         target docker
//! rank 2  repo                                  the rules of the store: what may follow what
//! rank 3  ops                                   verbs: Options -> one function -> Report
//! rank 4  volume                                Docker volumes as sources and targets
//! rank 5  live                                  running containers: policy, stacks, groups
//! rank 6  cli                                   the command line
//! ```

pub mod chunk;
pub mod cli;
pub mod clock;
pub mod docker;
pub mod error;
pub mod index;
pub mod live;
pub mod model;
pub mod ops;
pub mod pack;
pub mod progress;
pub mod repo;
pub mod seal;
pub mod source;
pub mod storage;
pub mod target;
pub mod volume;

pub use error::{Error, ErrorKind, Result};
