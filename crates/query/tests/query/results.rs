//! Results on their way to a client.

use crate::bench::{Bench, rows};
use arrow::ipc::reader::StreamReader;
use bytes::Bytes;
use futures::TryStreamExt;
use mainstem_query::query_to_ipc;

#[test]
fn a_result_goes_out_as_one_arrow_stream_in_small_chunks() {
    let mut bench = Bench::new();
    bench.topic("numbers", 1, None);
    bench.numbers("numbers", 0, 60, 1_000);
    let result = bench
        .start("SELECT n, name, _value FROM numbers ORDER BY n")
        .unwrap();
    let chunks: Vec<Bytes> = bench
        .block_on(query_to_ipc(result).unwrap().try_collect())
        .unwrap();
    assert!(
        chunks
            .iter()
            .all(|chunk| !chunk.is_empty() && chunk.len() <= 1 << 20)
    );
    let bytes = chunks.concat();
    let batches: Vec<_> = StreamReader::try_new(bytes.as_slice(), None)
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let rows: Vec<_> = batches.iter().flat_map(rows).collect();
    assert_eq!(rows.len(), 60_000);
    assert_eq!(rows[59_999][..2], ["59999", "name-59999"]);
}

#[test]
fn an_empty_result_still_has_its_schema() {
    let mut bench = Bench::new();
    bench.topic("numbers", 1, Some("n:int"));
    let result = bench.start("SELECT n, _headers FROM numbers").unwrap();
    let chunks: Vec<Bytes> = bench
        .block_on(query_to_ipc(result).unwrap().try_collect())
        .unwrap();
    let bytes = chunks.concat();
    let reader = StreamReader::try_new(bytes.as_slice(), None).unwrap();
    assert_eq!(reader.schema().fields().len(), 2);
    assert_eq!(reader.count(), 0);
}

#[test]
fn an_error_in_the_middle_ends_the_stream() {
    let mut bench = Bench::new();
    bench.topic("numbers", 1, Some("n:int"));
    bench.numbers("numbers", 0, 1, 10);
    let result = bench.start("SELECT 1 / (n - 5) FROM numbers").unwrap();
    let error = bench
        .block_on(query_to_ipc(result).unwrap().try_collect::<Vec<Bytes>>())
        .unwrap_err();
    assert_eq!(error.code(), "sql_failed");
    assert!(error.to_string().to_lowercase().contains("zero"), "{error}");
}
