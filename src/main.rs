//! The `icecore` program: parses, dispatches, and turns the result into an exit code. All of it is in the library's
//! `cli` module, where it can be tested.

use std::process::ExitCode;

fn main() -> ExitCode {
    icecore::cli::main(std::env::args_os().collect())
}
