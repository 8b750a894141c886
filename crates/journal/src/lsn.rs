//! Log sequence numbers.

use std::fmt;

/// The number of a frame in the journal. The first frame is `Lsn(1)`; `Lsn(0)` stands for "before everything".
/// Numbers are dense: each frame has the one after the frame before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Before the first frame.
    pub const ZERO: Lsn = Lsn(0);

    /// The number of the frame that follows.
    pub const fn next(self) -> Lsn {
        Lsn(self.0 + 1)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
