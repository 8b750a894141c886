//! A slow medium: several groups are under way at a time, they complete in any order, and come back in theirs.

use std::collections::VecDeque;

use mainstem_journal::{FileMedium, Group, JournalError, Lsn, Medium, SealedGroup, Space};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::coverage::met;

/// Groups that completed before an earlier one.
pub const OUT_OF_ORDER: &str = "groups completed out of order";

/// The journal's files behind a long way.
pub struct SlowMedium {
    files: FileMedium,
    under_way: VecDeque<UnderWay>,
    submitted_lsn: Lsn,
    rng: SmallRng,
    /// Of a hundred groups under way so many complete with each call.
    percent: u32,
}

struct UnderWay {
    group: SealedGroup,
    complete: bool,
}

impl SlowMedium {
    /// Of a hundred groups under way, `percent` complete with each call: at 100 it is as quick as the files.
    pub fn new(files: FileMedium, percent: u32, seed: u64) -> SlowMedium {
        SlowMedium {
            submitted_lsn: files.durable_lsn(),
            files,
            under_way: VecDeque::new(),
            rng: SmallRng::seed_from_u64(seed),
            percent,
        }
    }
}

impl Medium for SlowMedium {
    fn submit(&mut self, group: SealedGroup) -> Result<(), JournalError> {
        if group.payload_bytes() > self.files.max_payload_bytes() {
            let (bytes, limit_bytes) = (group.payload_bytes(), self.files.max_payload_bytes());
            return Err(JournalError::GroupTooLarge {
                bytes: bytes as u64,
                limit_bytes: limit_bytes as u64,
            });
        }
        if group.first_lsn() != self.submitted_lsn.next() {
            return Err(JournalError::OutOfOrder {
                expected: self.submitted_lsn.next(),
                got: group.first_lsn(),
            });
        }
        self.submitted_lsn = group.last_lsn();
        self.under_way.push_back(UnderWay {
            group,
            complete: false,
        });
        Ok(())
    }

    fn drive(&mut self) -> Result<Vec<Group>, JournalError> {
        if self.under_way.is_empty() {
            return self.files.drive();
        }
        for one in &mut self.under_way {
            one.complete |= self.rng.random_range(0..100) < self.percent;
        }
        let mut ready = 0;
        while self.under_way.front().is_some_and(|one| one.complete) {
            if let Some(one) = self.under_way.pop_front() {
                self.files.submit(one.group)?;
                ready += 1;
            }
        }
        if self.under_way.iter().any(|one| one.complete) {
            met(OUT_OF_ORDER);
        }
        if ready == 0 {
            return Ok(Vec::new());
        }
        self.files.drive()
    }

    fn has_background_work(&self) -> bool {
        self.files.has_background_work()
    }

    fn durable_lsn(&self) -> Lsn {
        self.files.durable_lsn()
    }

    fn mark_idle(&mut self) -> Result<(), JournalError> {
        if self.under_way.is_empty() {
            self.files.mark_idle()
        } else {
            Ok(())
        }
    }

    fn recycle(&mut self, up_to: Lsn) -> Result<(), JournalError> {
        self.files.recycle(up_to)
    }

    fn max_payload_bytes(&self) -> usize {
        self.files.max_payload_bytes()
    }

    fn space(&self) -> Result<Space, JournalError> {
        self.files.space()
    }

    fn supports_references(&self) -> bool {
        self.files.supports_references()
    }

    fn journal_id(&self) -> u128 {
        self.files.journal_id()
    }
}
