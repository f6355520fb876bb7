//! Fuzz targets of icecore; `docs/testing.md` says how to run them.

pub mod targets;
