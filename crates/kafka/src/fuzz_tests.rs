//! The targets over the kept seeds and what is near them; and that no request is left out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;

use super::{CONTROLS, TARGETS, fetch_codec, produce_codec};
use crate::api::{self, Handler, TABLE};
use crate::wire::Reader;

/// Changes of each seed that are tried.
const CHANGES: u32 = 200;

#[test]
fn every_control_request_is_a_target() {
    for api in TABLE {
        if let Handler::Control(..) = api.handler {
            let found = CONTROLS.iter().find(|one| one.key == api.key);
            let found = found.unwrap_or_else(|| panic!("fuzz.rs lacks {} ({})", api.name, api.key));
            assert_eq!(found.versions, api.versions, "fuzz.rs: {}", api.name);
            for version in api.versions.0..=api.versions.1 {
                assert_eq!((found.flexible)(version), api.is_flexible(version));
            }
        }
    }
}

/// The seeds of a target: each a line of hexadecimal digits.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
    let text = std::fs::read_to_string(folder.join(format!("{target}.hex"))).unwrap();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let seed = |line: &str| line.as_bytes().chunks(2).map(byte).collect();
    text.lines().map(seed).collect()
}

/// Numbers that are the same each time (xorshift).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below.max(1) as u64) as usize
    }
}

/// Some bytes other, missing or repeated.
fn change(seed: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=numbers.next(4) {
        let at = numbers.next(bytes.len());
        match numbers.next(5) {
            0 if at < bytes.len() => bytes[at] ^= 1 << numbers.next(8),
            1 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][numbers.next(5)],
            2 => bytes.truncate(at),
            3 => bytes.extend_from_within(at..),
            _ => bytes.insert(at, numbers.next(256) as u8),
        }
    }
    bytes
}

#[test]
fn each_version_of_produce_and_fetch_is_among_the_seeds() {
    for (key, name) in [(0, "produce"), (1, "fetch")] {
        let api = api::find(key).unwrap();
        let (from, to) = api.versions;
        // What is read to its end.
        let version = |seed: &Vec<u8>| {
            let version = from + i16::from(seed[0]) % (to - from + 1);
            let body = Bytes::copy_from_slice(&seed[1..]);
            let mut reader = Reader::new(&body, api.is_flexible(version));
            let is_read = match key {
                0 => produce_codec::Request::read(&mut reader, version).is_ok(),
                _ => fetch_codec::Request::read(&mut reader, version).is_ok(),
            };
            (is_read && reader.left() == 0).then_some(version)
        };
        let found: BTreeSet<i16> = seeds(name).iter().filter_map(version).collect();
        assert!(found.iter().copied().eq(from..=to), "{name}: {found:?}");
    }
}

#[test]
fn seeds_and_what_is_near_them() {
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has seeds");
        let mut numbers = Numbers(2013);
        for seed in &seeds {
            target(seed);
            for _ in 0..CHANGES {
                target(&change(seed, &mut numbers));
            }
        }
    }
}

#[test]
#[should_panic(expected = "bytes of memory")]
fn memory_beyond_what_is_allowed_is_noticed() {
    super::within(&[0; 10], 0, || {
        drop(Vec::<u8>::with_capacity(64 << 20));
        Some(())
    });
}
