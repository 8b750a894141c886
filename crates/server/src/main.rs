//! The `mainstem` binary: the server, and the command line that talks to one.
//!
//! `serve/` is the server: configuration, listeners, lifecycle, telemetry, around the library `mainstem`.
//! `cli/` holds one file per command; all of them speak to a server through the native client. `guest.rs` carries
//! what a handler's author needs: the contract, the SDK and a template.

mod cli;
mod failure;
mod guest;
mod serve;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = match cli::parse() {
        Ok(arguments) => arguments,
        Err(exit) => return exit,
    };
    let json = arguments.wants_json();
    match cli::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report(json);
            ExitCode::from(failure.exit)
        }
    }
}
