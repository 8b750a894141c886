//! The gateway's decoders, as they are, without the gateway: the files of `crates/kafka` that need nothing of the platform.
#![allow(dead_code, unused_imports)]

mod codec;
#[path = "../../crates/kafka/src/frame.rs"]
mod frame;
#[path = "../../crates/kafka/src/fuzz.rs"]
mod fuzz;
/// What answers are made of: no target has a platform with files.
mod piece {
    pub(crate) type Piece = bytes::Bytes;
}
#[path = "../../crates/kafka/src/shape.rs"]
mod shape;
#[path = "../../crates/kafka/src/shapes.rs"]
mod shapes;
#[path = "../../crates/kafka/src/wire.rs"]
mod wire;

/// A target of that name.
pub fn target(name: &str) -> fn(&[u8]) {
    let found = fuzz::TARGETS.iter().find(|(one, _)| *one == name);
    found
        .map(|(_, target)| *target)
        .unwrap_or_else(|| panic!("no target is called {name}"))
}
