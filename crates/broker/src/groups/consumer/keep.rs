//! What is told is durable: answers wait for the record that holds everything they have seen.
//!
//! One record at a time is on its way; what changes meanwhile goes into the next one, all of it together. So a hundred
//! members that join at once are a few records, not a hundred.

use super::Consumer;
use super::types::ConsumerBeat;
use crate::BrokerError;
use crate::groups::effects::{Effect, Storing, WaitId};
use crate::groups::record::Record;

/// An answer that waits.
pub(super) type Waiting = (WaitId, Result<ConsumerBeat, BrokerError>);

impl Consumer {
    /// Answers once everything that the answer has seen is durable.
    pub(super) fn answer(
        &mut self,
        wait: WaitId,
        answer: Result<ConsumerBeat, BrokerError>,
        effects: &mut Vec<Effect>,
    ) {
        match (self.changed, self.under_way) {
            (true, _) => self.next_answers.push((wait, answer)),
            (false, true) => self.answers.push((wait, answer)),
            (false, false) => effects.push(Effect::Beat(wait, answer)),
        }
    }

    /// Has the group kept as it is now, if it has changed and no record is on its way.
    pub(super) fn keep(&mut self, effects: &mut Vec<Effect>) {
        if !self.changed || self.under_way {
            return;
        }
        self.changed = false;
        self.under_way = true;
        self.answers.append(&mut self.next_answers);
        let record = Record::Consumer(Box::new(self.record()));
        effects.push(Effect::Store(record, Storing::Group));
    }

    /// The record is durable, or has failed. Where it has, nobody hears of anything, and the next event tries again: to
    /// the members it is as if answers were lost.
    pub(crate) fn stored(&mut self, outcome: Result<(), BrokerError>, effects: &mut Vec<Effect>) {
        self.under_way = false;
        let answers = std::mem::take(&mut self.answers);
        if let Err(error) = outcome {
            let waiting = answers.into_iter().chain(self.next_answers.drain(..));
            effects.extend(waiting.map(|(wait, _)| Effect::Beat(wait, Err(error.clone()))));
            self.changed = true;
            for member in self.members.values_mut() {
                member.tell_all = true;
            }
            return;
        }
        effects.extend(
            answers
                .into_iter()
                .map(|(wait, answer)| Effect::Beat(wait, answer)),
        );
        self.keep(effects);
    }
}
