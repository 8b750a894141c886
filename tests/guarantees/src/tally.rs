//! What a run has counted, and why it failed.

use std::fmt;

/// The counts of one run, or of several added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Ends by force, all kinds.
    pub kills: u64,
    /// Of these: losses of power.
    pub power_losses: u64,
    /// Of these: in the middle of a recovery.
    pub during_recovery: u64,
    /// Records acknowledged to producers.
    pub acknowledged: u64,
    /// Acknowledged records that were not there afterwards.
    pub lost: u64,
    /// Records that were there twice.
    pub doubled: u64,
    /// Frames that recoveries applied again.
    pub replayed: u64,
    /// Events that the handler passed.
    pub handled: u64,
    /// Records that the handler could not handle, each found once in the dead-letter topic.
    pub dead_letters: u64,
    /// Snapshots or queries over offsets, state and outputs that were compared with a recount.
    pub snapshots: u64,
}

impl Tally {
    /// Adds another run.
    pub fn add(&mut self, other: &Tally) {
        self.kills += other.kills;
        self.power_losses += other.power_losses;
        self.during_recovery += other.during_recovery;
        self.acknowledged += other.acknowledged;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.replayed += other.replayed;
        self.handled += other.handled;
        self.dead_letters += other.dead_letters;
        self.snapshots += other.snapshots;
    }

    /// A run whose crashes left nothing to replay, or that compared nothing, shows nothing.
    pub fn verdict(&self) -> Result<(), Failure> {
        let shown = [
            (self.kills, "nothing was killed"),
            (self.acknowledged, "nothing was acknowledged"),
            (self.replayed, "no crash left anything to replay"),
            (self.snapshots, "no snapshot was compared"),
        ];
        match shown.iter().find(|(count, _)| *count == 0) {
            Some((_, what)) => Err(Failure::new(format!("{what}: the run shows nothing"))),
            None if self.lost + self.doubled > 0 => Err(Failure::new(format!(
                "{} lost, {} doubled",
                self.lost, self.doubled
            ))),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kills ({} of them power, {} during recovery) · {} acknowledged · {} lost · {} doubled · {} frames \
             replayed · {} events handled, {} dead-lettered · {} snapshots agreed",
            self.kills,
            self.power_losses,
            self.during_recovery,
            self.acknowledged,
            self.lost,
            self.doubled,
            self.replayed,
            self.handled,
            self.dead_letters,
            self.snapshots
        )
    }
}

/// A promise that did not hold.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was found.
    pub what: String,
    /// What had been counted until then, where that is known.
    pub tally: Tally,
}

impl Failure {
    /// A failure without counts.
    pub fn new(what: impl Into<String>) -> Failure {
        Failure {
            what: what.into(),
            tally: Tally::default(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Failure {}

/// Ends the calling function with a [`Failure`] unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($why:tt)+) => {
        if !$condition {
            return Err($crate::Failure::new(format!($($why)+)));
        }
    };
}
