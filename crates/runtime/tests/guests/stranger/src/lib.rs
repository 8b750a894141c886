//! A component, but no handler.

wit_bindgen::generate!({ path: "wit", world: "stranger" });

struct Stranger;

impl Guest for Stranger {
    fn run() -> u64 {
        somebody::other::clock::now()
    }
}

export!(Stranger);
