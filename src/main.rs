//! The `icecore` program.
fn main() {}
