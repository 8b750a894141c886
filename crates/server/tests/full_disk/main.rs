//! A disk that is full under the real binary: small file systems of their own are filled to the last byte, by somebody
//! else, while a producer produces.
//!
//! Needs the right to mount. Without it the tests count as ignored, and say why; so they have no usual harness.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod disk;
mod part;
#[path = "../support/mod.rs"]
mod support;
mod whole;

use disk::SmallDisk;

type Test = (&'static str, fn());

const TESTS: [Test; 4] = [
    (
        "a_full_disk_refuses_records_loses_none_and_goes_on_by_itself_when_there_is_space",
        whole::full_disk,
    ),
    (
        "a_journal_that_finds_no_space_stops_writes_until_there_is_some_and_loses_nothing",
        part::journal,
    ),
    (
        "a_segment_that_finds_no_space_stops_writes_until_there_is_some_and_loses_nothing",
        part::segment,
    ),
    (
        "a_store_that_finds_no_space_stops_writes_until_there_is_some_and_loses_nothing",
        part::store,
    ),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut filters = arguments
        .iter()
        .filter(|argument| !argument.starts_with('-'))
        .peekable();
    let all = filters.peek().is_none();
    let filters: Vec<&String> = filters.collect();
    let wanted = |name: &str| all || filters.iter().any(|filter| name.contains(*filter));
    let tests: Vec<&Test> = TESTS.iter().filter(|(name, _)| wanted(name)).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        return tests.iter().for_each(|(name, _)| println!("{name}: test"));
    }
    println!("\nrunning {} tests", tests.len());
    let unable = SmallDisk::refused();
    let (mut passed, mut failed, mut ignored) = (0, 0, 0);
    for (name, test) in tests {
        let said = match &unable {
            Some(why) => {
                ignored += 1;
                format!("ignored, {why}")
            }
            // The panic says what was wrong.
            None if std::panic::catch_unwind(test).is_err() => {
                failed += 1;
                "FAILED".to_owned()
            }
            None => {
                passed += 1;
                "ok".to_owned()
            }
        };
        println!("test {name} ... {said}");
    }
    let result = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {result}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; 0 filtered out\n"
    );
    std::process::exit(if failed == 0 { 0 } else { 101 });
}
