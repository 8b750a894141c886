//! libFuzzer over one target: the one that the environment names.
#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    mainstem_fuzz::target(&std::env::var("TARGET").expect("TARGET names a target"))
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (*TARGET)(bytes));
