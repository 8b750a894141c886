//! A short run against the real binary, which must have been built: `cargo build --release --bin mainstem`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[cfg(not(feature = "mutations"))]
#[test]
fn kill_9_loses_and_doubles_nothing() {
    use mainstem_guarantees::server::{self, Plan};

    let tally = server::run(Plan::short()).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{tally}");
    tally.verdict().unwrap();
}
