//! What holds for every batch: round trips through every codec, refusal of every damaged byte, and
//! calm in the face of arbitrary bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use bytes::Bytes;
use mainstem_record::{
    BATCH_HEADER_BYTES, Batch, BatchBuilder, BatchHeader, Compression, Record, RecordError,
    TimestampType, assign,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

#[derive(Debug, Clone)]
struct Input {
    timestamp_ms: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

fn input() -> impl Strategy<Value = Input> {
    let timestamp_ms = prop_oneof![1_300_000_000_000i64..1_800_000_000_000, any::<i64>()];
    let value = prop_oneof![vec(any::<u8>(), 0..200), vec(Just(b'x'), 0..5_000)];
    (
        timestamp_ms,
        option::of(vec(any::<u8>(), 0..40)),
        option::of(value),
        vec((".{0,8}", option::of(vec(any::<u8>(), 0..20))), 0..4),
    )
        .prop_map(|(timestamp_ms, key, value, headers)| Input {
            timestamp_ms,
            key,
            value,
            headers,
        })
}

fn codec() -> impl Strategy<Value = Compression> {
    proptest::sample::select(Compression::ALL.to_vec())
}

fn build(inputs: &[Input], compression: Compression) -> Batch {
    let mut builder = BatchBuilder::new(compression, 64 << 20);
    builder.producer(77, 3, 1_000);
    for input in inputs {
        let headers: Vec<_> = input
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref()))
            .collect();
        builder
            .append(
                input.timestamp_ms,
                input.key.as_deref(),
                input.value.as_deref(),
                &headers,
            )
            .unwrap();
    }
    assert_eq!(builder.record_count() as usize, inputs.len());
    builder.build().unwrap()
}

fn expected(inputs: &[Input], base_offset: i64) -> Vec<Record> {
    (base_offset..)
        .zip(inputs)
        .map(|(offset, input)| Record {
            offset,
            timestamp_ms: input.timestamp_ms,
            key: input.key.clone().map(Bytes::from),
            value: input.value.clone().map(Bytes::from),
            headers: input
                .headers
                .iter()
                .map(|(name, value)| (Bytes::from(name.clone()), value.clone().map(Bytes::from)))
                .collect(),
        })
        .collect()
}

/// Everything that can be asked of bytes; only calm is expected.
fn exercise(bytes: Bytes) {
    let _ = BatchHeader::read(&bytes);
    let _ = Batch::parse(bytes.clone());
    let mut rest = bytes.clone();
    while let Ok(Some(_)) = Batch::split_first(&mut rest) {}
    if let Ok(batch) = Batch::trusted(bytes) {
        let _ = batch.check_records(1 << 20);
        let _ = (
            batch.last_offset(),
            batch.next_offset(),
            batch.header().last_sequence(),
        );
        if let Ok(payload) = batch.payload_within(1 << 20) {
            assert!(
                batch.header().compression() == Compression::None
                    || payload.size_bytes() <= 1 << 20
            );
            // Each record takes bytes, so even a lying count ends; and an error ends it too.
            let seen = payload.views().take(1 << 21).count();
            assert!(seen <= payload.size_bytes() + 1);
            let _ = payload.into_records().count();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn round_trip(inputs in vec(input(), 1..40), codec in codec(), base_offset in 0i64..1 << 50) {
        let built = build(&inputs, codec);
        let mut bytes = built.bytes().to_vec();
        assign(&mut bytes, base_offset, 9);
        let batch = Batch::parse(Bytes::from(bytes)).unwrap();
        prop_assert_eq!(batch.header().compression(), codec);
        prop_assert_eq!((batch.base_offset(), batch.header().leader_epoch), (base_offset, 9));
        prop_assert_eq!(batch.next_offset(), base_offset + inputs.len() as i64);
        prop_assert_eq!(batch.header().max_timestamp_ms, inputs.iter().map(|input| input.timestamp_ms).max().unwrap());
        batch.check_records(64 << 20).unwrap();

        let records: Vec<Record> = batch.records().unwrap().map(Result::unwrap).collect();
        prop_assert_eq!(&records, &expected(&inputs, base_offset));

        let payload = batch.payload().unwrap();
        prop_assert_eq!(payload.views().count(), records.len());
        for (view, record) in payload.views().zip(&records) {
            let view = view.unwrap();
            prop_assert_eq!(view.offset, record.offset);
            prop_assert_eq!(view.timestamp_ms, record.timestamp_ms);
            prop_assert_eq!(view.key, record.key.as_deref());
            prop_assert_eq!(view.value, record.value.as_deref());
            let headers: Vec<_> = view.headers().map(|header| (header.name, header.value)).collect();
            let wanted: Vec<_> = record.headers.iter().map(|(name, value)| (&name[..], value.as_deref())).collect();
            prop_assert_eq!(headers, wanted);
        }
    }

    #[test]
    fn any_changed_byte_under_the_crc_is_refused(
        inputs in vec(input(), 1..10), codec in codec(), at in any::<prop::sample::Index>(), change in 1u8..,
    ) {
        let mut bytes = build(&inputs, codec).bytes().to_vec();
        // From the stored CRC itself to the end.
        let at = 17 + at.index(bytes.len() - 17);
        bytes[at] ^= change;
        prop_assert!(Batch::parse(Bytes::from(bytes)).is_err());
    }

    #[test]
    fn any_cut_is_called_truncated(inputs in vec(input(), 1..5), codec in codec(), at in any::<prop::sample::Index>()) {
        let whole = build(&inputs, codec).into_bytes();
        let cut = whole.slice(..1 + at.index(whole.len() - 1));
        let mut rest = cut.clone();
        let refused = matches!(Batch::split_first(&mut rest), Err(RecordError::Truncated { .. }));
        prop_assert!(refused);
        prop_assert_eq!(rest, cut);
    }

    #[test]
    fn batches_in_a_row_are_split(runs in vec((vec(input(), 1..5), codec()), 0..5)) {
        let batches: Vec<Batch> = runs.iter().map(|(inputs, codec)| build(inputs, *codec)).collect();
        let mut rest = Bytes::from(batches.iter().flat_map(|batch| batch.bytes().to_vec()).collect::<Vec<u8>>());
        for batch in &batches {
            let split = Batch::split_first(&mut rest).unwrap();
            prop_assert_eq!(split.as_ref(), Some(batch));
        }
        prop_assert_eq!(Batch::split_first(&mut rest).unwrap(), None);
    }

    #[test]
    fn arbitrary_bytes_are_met_calmly(bytes in vec(any::<u8>(), 0..400)) {
        exercise(Bytes::from(bytes));
    }

    /// Random bytes seldom get past the magic, so the same for a batch that says all the right
    /// things in its header and has anything at all behind it.
    #[test]
    fn arbitrary_payloads_are_met_calmly(
        mut payload in vec(any::<u8>(), 0..400), attributes in any::<i16>(), count in any::<i32>(), delta in any::<i32>(), xerial in any::<bool>(),
    ) {
        if xerial {
            payload.splice(0..0, [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1]);
        }
        exercise(with_payload(&payload, attributes, count, delta));
        exercise(with_payload(&payload, attributes & 0b111, count & 0xf, (count & 0xf) - 1));
    }

    /// And for almost right payloads: one byte of the compressed or plain records changed.
    #[test]
    fn damaged_payloads_are_met_calmly(
        inputs in vec(input(), 1..6), codec in codec(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let batch = build(&inputs, codec);
        let mut payload = batch.bytes()[BATCH_HEADER_BYTES..].to_vec();
        let at = at.index(payload.len());
        payload[at] = byte;
        let header = batch.header();
        exercise(with_payload(&payload, header.attributes, header.record_count, header.last_offset_delta));
    }
}

/// A batch with a right length and CRC around whatever is given.
fn with_payload(payload: &[u8], attributes: i16, count: i32, last_offset_delta: i32) -> Bytes {
    let mut bytes = vec![0; BATCH_HEADER_BYTES];
    bytes[8..12].copy_from_slice(&((payload.len() + BATCH_HEADER_BYTES - 12) as i32).to_be_bytes());
    bytes[16] = 2;
    bytes[21..23].copy_from_slice(&attributes.to_be_bytes());
    bytes[23..27].copy_from_slice(&last_offset_delta.to_be_bytes());
    bytes[57..61].copy_from_slice(&count.to_be_bytes());
    bytes.extend_from_slice(payload);
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    Bytes::from(bytes)
}

fn one(codec: Compression, value: &[u8]) -> Batch {
    let mut builder = BatchBuilder::new(codec, 1 << 30);
    builder.append(1_000, Some(b"k"), Some(value), &[]).unwrap();
    builder.build().unwrap()
}

/// A record without key and headers, as bytes.
fn plain(offset_delta: u8, value: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 0, offset_delta * 2, 1, value.len() as u8 * 2];
    body.extend_from_slice(value);
    body.push(0);
    body.insert(0, body.len() as u8 * 2);
    body
}

#[test]
fn decompression_has_a_cap() {
    let zeros = vec![0; 8 << 20];
    for codec in [
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ] {
        let batch = one(codec, &zeros);
        assert!(batch.size_bytes() < 1 << 20, "{codec}");
        let refused = batch.payload_within(1 << 20).unwrap_err();
        assert_eq!(
            refused,
            RecordError::DecompressedTooLarge {
                limit_bytes: 1 << 20
            },
            "{codec}"
        );
        let size = batch.payload().unwrap().size_bytes();
        assert_eq!(
            batch.payload_within(size).unwrap().size_bytes(),
            size,
            "{codec}: the limit itself is allowed"
        );
        assert!(batch.payload_within(size - 1).is_err(), "{codec}");
    }
}

#[test]
fn raw_snappy_is_read() {
    let records = plain(0, b"without xerial's framing");
    let raw = snap::raw::Encoder::new().compress_vec(&records).unwrap();
    let batch = Batch::parse(with_payload(&raw, 2, 1, 0)).unwrap();
    batch.check_records(1 << 20).unwrap();
    let record = batch.records().unwrap().next().unwrap().unwrap();
    assert_eq!(
        record.value.as_deref(),
        Some(&b"without xerial's framing"[..])
    );
}

#[test]
fn a_gzip_stream_in_several_members_is_read_whole() {
    let mut data = Vec::new();
    for part in [plain(0, b"one"), plain(1, b"two")] {
        let mut member = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut member, &part).unwrap();
        data.extend(member.finish().unwrap());
    }
    let batch = Batch::parse(with_payload(&data, 1, 2, 1)).unwrap();
    assert_eq!(batch.records().unwrap().map(Result::unwrap).count(), 2);
}

#[test]
fn header_contradictions_are_refused() {
    let records = [plain(0, b"a"), plain(1, b"b")].concat();
    let parse =
        |attributes, count, delta| Batch::parse(with_payload(&records, attributes, count, delta));
    assert!(parse(0, 2, 1).is_ok());
    for (count, delta) in [
        (0, -1),
        (2, 2),
        (-1, -2),
        (1, 0),
        (3, 2),
        (i32::MAX, i32::MAX - 1),
    ] {
        assert!(
            parse(0, count, delta).is_err(),
            "{count} records, last delta {delta}"
        );
    }
    assert_eq!(
        parse(5, 2, 1).unwrap_err(),
        RecordError::UnknownCompression { code: 5 }
    );

    let gap = [plain(0, b"a"), plain(2, b"b")].concat();
    assert!(Batch::parse(with_payload(&gap, 0, 2, 1)).is_err());
    let twice = [plain(0, b"a"), plain(0, b"b")].concat();
    assert!(Batch::parse(with_payload(&twice, 0, 2, 1)).is_err());

    let mut whole = with_payload(&records, 0, 2, 1).to_vec();
    whole[16] = 1;
    assert_eq!(
        Batch::parse(Bytes::from(whole.clone())).unwrap_err(),
        RecordError::BadMagic { found: 1 }
    );
    whole[16] = 2;
    assign(&mut whole, i64::MAX - 1, 0);
    assert!(
        Batch::parse(Bytes::from(whole.clone())).is_err(),
        "offsets would overflow"
    );
    assign(&mut whole, -1, 0);
    assert!(
        Batch::parse(Bytes::from(whole.clone())).is_err(),
        "a negative base offset"
    );
    assign(&mut whole, 5, 0);
    whole.push(0);
    assert!(Batch::parse(Bytes::from(whole)).is_err(), "a byte too many");
}

#[test]
fn a_newest_time_that_no_record_has_is_refused() {
    for codec in [Compression::None, Compression::Zstd] {
        let mut builder = BatchBuilder::new(codec, 1 << 20);
        for timestamp_ms in [1_000, 3_000, 2_000] {
            builder.append(timestamp_ms, None, Some(b"v"), &[]).unwrap();
        }
        let whole = builder.build().unwrap().bytes().to_vec();
        let check = |newest_ms: i64| {
            let mut bytes = whole.clone();
            bytes[35..43].copy_from_slice(&newest_ms.to_be_bytes());
            let crc = crc32c::crc32c(&bytes[21..]);
            bytes[17..21].copy_from_slice(&crc.to_be_bytes());
            Batch::parse(Bytes::from(bytes))?.check_records(1 << 20)
        };
        assert!(check(3_000).is_ok());
        for newest_ms in [0, 2_999, 3_001, i64::MAX] {
            let error = check(newest_ms).unwrap_err();
            assert!(error.to_string().contains("newest"), "{codec}: {error}");
        }
    }
}

#[test]
fn a_compacted_batch_may_have_gaps_when_read() {
    let records = [plain(1, b"a"), plain(4, b"b")].concat();
    let batch = Batch::trusted(with_payload(&records, 0, 2, 6)).unwrap();
    let offsets: Vec<i64> = batch
        .records()
        .unwrap()
        .map(|record| record.unwrap().offset)
        .collect();
    assert_eq!(offsets, [1, 4]);
    assert_eq!(batch.next_offset(), 7);
}

#[test]
fn append_time_is_one_for_all() {
    let mut bytes = with_payload(&plain(0, b"a"), 1 << 3, 1, 0).to_vec();
    bytes[35..43].copy_from_slice(&4_711i64.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    let batch = Batch::parse(Bytes::from(bytes)).unwrap();
    assert_eq!(
        batch.header().timestamp_type(),
        TimestampType::LogAppendTime
    );
    assert_eq!(
        batch
            .records()
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .timestamp_ms,
        4_711
    );
}

#[test]
fn the_builder_says_when_it_is_full_and_when_a_record_never_fits() {
    let mut builder = BatchBuilder::new(Compression::None, 200);
    assert!(builder.is_empty());
    assert!(matches!(
        builder.append(0, None, Some(&[0; 200]), &[]),
        Err(RecordError::RecordTooLarge { .. })
    ));
    builder.append(0, None, Some(&[0; 100]), &[]).unwrap();
    let before = builder.len_bytes();
    assert_eq!(
        builder.append(0, None, Some(&[0; 100]), &[]),
        Err(RecordError::Full { max_bytes: 200 })
    );
    assert_eq!(builder.len_bytes(), before);
    let batch = builder.build().unwrap();
    assert_eq!((batch.size_bytes(), batch.record_count()), (before, 1));
    assert_eq!(
        BatchBuilder::new(Compression::None, 200)
            .build()
            .unwrap_err(),
        RecordError::Empty
    );
}

#[test]
fn sequences_wrap_after_the_largest() {
    let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
    builder.producer(1, 0, i32::MAX);
    builder.append(0, None, None, &[]).unwrap();
    builder.append(0, None, None, &[]).unwrap();
    assert_eq!(builder.build().unwrap().header().last_sequence(), 0);
}

#[test]
fn codec_names_parse() {
    for codec in Compression::ALL {
        assert_eq!(codec.name().parse::<Compression>().unwrap(), codec);
    }
    assert!("brotli".parse::<Compression>().is_err());
}

/// Bytes that a Kafka broker handed out (they stand in the tests of kafka-python): one record, `123`.
#[test]
fn a_batch_of_kafkas_own_is_read() {
    let bytes = b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00;\x00\x00\x00\x01\x02\x03\x18\xa2p\x00\x00\x00\x00\
        \x00\x00\x00\x00\x01]\xff{\x06<\x00\x00\x01]\xff{\x06<\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\
        \x00\x00\x00\x01\x12\x00\x00\x00\x01\x06123\x00";
    let batch = Batch::parse(Bytes::from_static(bytes)).unwrap();
    let record = batch.records().unwrap().next().unwrap().unwrap();
    assert_eq!((record.offset, record.timestamp_ms), (0, 1_503_229_838_908));
    assert_eq!(
        (record.key, record.value.as_deref()),
        (None, Some(&b"123"[..]))
    );

    // And the same record, built here, is the same bytes.
    let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
    builder
        .append(1_503_229_838_908, None, Some(b"123"), &[])
        .unwrap();
    let mut built = builder.build().unwrap().bytes().to_vec();
    assign(&mut built, 0, 1);
    assert_eq!(built, bytes);
}
