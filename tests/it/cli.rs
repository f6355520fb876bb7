//! The command line as a contract: what each verb does, its JSON, its exit codes and its words, through the real program.

mod contract;
mod exits;
mod indexing;
mod keys;
mod naming;
mod refusals;
mod restoring;
