//! The page in `docs/` shows the table as it is in the code.
#![allow(clippy::unwrap_used, missing_docs)]

#[test]
fn the_page_has_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/kafka.md");
    let page = std::fs::read_to_string(path).unwrap();
    let table = mainstem_kafka::table_markdown();
    assert!(
        page.contains(&table),
        "docs/kafka.md needs this table:\n{table}"
    );
}
