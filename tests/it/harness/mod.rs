//! What the fault tests share: trees kept as plain copies, repositories in memory that can be forked with their index, and
//! the one check of what must hold after whatever happened to them ([`invariants`]).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on must say where")]
#![allow(dead_code, reason = "not every test module uses every helper")]

pub(crate) mod index;
pub(crate) mod invariants;
pub(crate) mod plain;
pub(crate) mod state;
pub(crate) mod trees;

pub(crate) use index::TestIndex;
pub(crate) use plain::{PlainTree, plain_copy, restored, restored_with_report};
pub(crate) use state::{Frozen, State};
