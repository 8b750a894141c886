//! One run: a seed chooses who moves next, and when the node goes down and how.

use std::hash::{DefaultHasher, Hash, Hasher};

use mainstem_broker::NewTopic;
use mainstem_engine::testing::{Crash, small_options};
use rand::Rng;

use super::check::Ledger;
use super::handler::{ALERTS, INPUT, OUTPUT, is_going_down};
use super::node::{Node, Sizes, caller};
use super::producer::Producer;
use super::{Length, handler};
use crate::{Failure, Tally, ensure};

const PARTITIONS: u32 = 4;
const PRODUCERS: usize = 3;

pub(super) struct World {
    node: Node,
    producers: Vec<Producer>,
    ledger: Ledger,
    stopping: bool,
    /// The disk has been told to stop: until the next crash, reads may fail.
    halted: bool,
    history: DefaultHasher,
}

impl World {
    pub(super) fn new(seed: u64) -> Result<World, Failure> {
        // A step must fit into the small node's frames.
        let sizes = Sizes {
            engine: small_options(),
            step_bytes: 48 << 10,
            step_events: 256,
        };
        let mut node = Node::new(seed, sizes)?;
        let broker = node.live().broker.clone();
        for (name, partitions) in [(INPUT, PARTITIONS), (OUTPUT, PARTITIONS), (ALERTS, 2)] {
            let (who, broker) = (caller(), broker.clone());
            let created = async move {
                broker
                    .create_topic(&who, NewTopic::named(name).partitions(partitions), 1)
                    .await
            };
            node.block_on(created)?
                .map_err(|error| Failure::new(format!("topic {name}: {error}")))?;
        }
        let runtime = node.live().runtime.clone();
        let who = caller();
        node.block_on(async move {
            runtime
                .deploy(&who, handler::deployment(), 1)
                .await
                .map(drop)
        })?
        .map_err(|error| Failure::new(format!("the deployment: {error}")))?;
        let mut producers = Vec::new();
        for number in 0..PRODUCERS {
            let (who, broker) = (caller(), broker.clone());
            let identity = node.block_on(async move { broker.init_producer(&who).await })?;
            let identity = identity
                .map_err(|error| Failure::new(format!("a producer's identity: {error}")))?;
            producers.push(Producer::new(number, identity, PARTITIONS));
        }
        let ledger = Ledger::new(PARTITIONS);
        Ok(World {
            node,
            producers,
            ledger,
            stopping: false,
            halted: false,
            history: DefaultHasher::new(),
        })
    }

    /// Plays to the end, and checks that everything comes to rest where it must.
    pub(super) fn run(mut self, length: Length) -> Result<Tally, Failure> {
        match self.play(length) {
            Ok(()) => Ok(std::mem::take(&mut self.node.tally)),
            Err(failure) => Err(Failure {
                tally: std::mem::take(&mut self.node.tally),
                ..failure
            }),
        }
    }

    /// What has happened, as one number: the same seed must always give the same.
    pub(super) fn digest(&self) -> u64 {
        let mut history = self.history.clone();
        format!("{:?} {:?}", self.node.tally, self.node.disk.counts()).hash(&mut history);
        history.finish()
    }

    pub(super) fn play(&mut self, length: Length) -> Result<(), Failure> {
        for _ in 0..length.moves {
            match self.node.rng.random_range(0..10_000) {
                0..5_000 => drop(self.node.move_engine()),
                5_000..7_200 => drop(self.node.move_runtime()),
                7_200..9_700 => self.produce()?,
                9_700..9_800 => self.node.tick(),
                9_800..9_920 if self.halted => {}
                9_800..9_840 => self.ledger.read_all(self.node.live())?,
                9_840..9_920 => drop(self.snapshot()?),
                9_920..9_980 => self.crash()?,
                // The disk stops in the middle of something. What was written may be there, and must not count.
                9_980..9_995 => {
                    let operations = self.node.rng.random_range(0..40);
                    self.node.disk.halt_after(operations);
                    self.halted = true;
                }
                _ => self.restart()?,
            }
        }
        self.come_to_rest()
    }

    fn produce(&mut self) -> Result<(), Failure> {
        let chosen = self.node.rng.random_range(0..self.producers.len());
        // An answer that came too early shows when the power goes right behind it.
        if self.turn(chosen)? && self.node.rng.random_bool(0.03) {
            self.go_down(Crash::Power)?;
        }
        Ok(())
    }

    /// Says whether something was acknowledged.
    fn turn(&mut self, chosen: usize) -> Result<bool, Failure> {
        let broker = self.node.live().broker.clone();
        let producer = &mut self.producers[chosen];
        let acknowledged =
            producer.turn(&broker, &mut self.node.rng, self.stopping, self.node.now_ms)?;
        let some = !acknowledged.is_empty();
        for (partition, base, records) in acknowledged {
            (chosen, partition, base, records.len()).hash(&mut self.history);
            self.ledger
                .acknowledge(partition, base, records, &mut self.node.tally)?;
        }
        Ok(some)
    }

    /// Takes a snapshot while everything goes on; says whether there was one.
    fn snapshot(&mut self) -> Result<bool, Failure> {
        let ticket = self.node.live().engine.snapshot();
        let snapshot = match self.node.block_on(ticket)? {
            Ok(snapshot) => snapshot,
            Err(error) if is_going_down(&error) => return Ok(false),
            Err(error) => return Err(Failure::new(format!("no snapshot: {error}"))),
        };
        snapshot.lsn.0.hash(&mut self.history);
        self.ledger.check_snapshot(self.node.live(), &snapshot)?;
        let tally = &mut self.node.tally;
        tally.snapshots += 1;
        (tally.handled, tally.dead_letters) = self.ledger.handled();
        Ok(true)
    }

    /// Goes down once, or several times shortly after each other.
    fn crash(&mut self) -> Result<(), Failure> {
        loop {
            let crash = self.node.any_crash();
            self.go_down(crash)?;
            if self.node.rng.random_bool(0.6) {
                return Ok(());
            }
            for _ in 0..self.node.rng.random_range(0..30) {
                self.node.move_engine();
                self.node.move_runtime();
            }
        }
    }

    fn go_down(&mut self, crash: Crash) -> Result<(), Failure> {
        (crash == Crash::Power).hash(&mut self.history);
        self.node.crash(crash)?;
        self.halted = false;
        self.come_back()
    }

    fn restart(&mut self) -> Result<(), Failure> {
        let healthy = self.node.live().engine.status().poisoned.is_none();
        if healthy {
            // A disk that is about to stop would make a clean stop impossible.
            self.node.disk.halt_after(u64::MAX);
            self.halted = false;
            self.node.restart()?;
            return self.come_back();
        }
        self.crash()
    }

    fn come_back(&mut self) -> Result<(), Failure> {
        self.producers.iter_mut().for_each(Producer::disconnect);
        // What recovery shows, a reader sees at once.
        self.ledger.read_all(self.node.live())?;
        self.ledger.check_input(&mut self.node.tally)?;
        self.node.deploy();
        Ok(())
    }

    /// Nothing new is sent: every producer gets its answers, the handler catches up, and all is compared once more.
    fn come_to_rest(&mut self) -> Result<(), Failure> {
        self.crash()?;
        self.stopping = true;
        for round in 0.. {
            ensure!(round < 2_000, "producers or handler do not come to rest");
            self.node.settle();
            for chosen in 0..self.producers.len() {
                self.turn(chosen)?;
            }
            self.node.tick();
            if self.producers.iter().all(Producer::is_idle) && round % 20 == 19 {
                self.node.settle();
                let shown = self.snapshot()?;
                self.ledger.read_all(self.node.live())?;
                if shown && self.ledger.is_caught_up() {
                    break;
                }
            }
        }
        self.restart()?;
        ensure!(self.snapshot()?, "no snapshot after a clean restart");
        Ok(())
    }
}
