//! Verbs: one file each, `Options` in, one function, `Report` out. No verb prints or decides what a user meant.

pub mod diff;
pub mod forget;
pub mod prune;
pub mod restore;
pub mod snapshot;
pub mod stats;
pub mod tree;
pub mod verify;
