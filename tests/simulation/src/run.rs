//! One seed: a machine, a node on it that dies and comes back over and over, and what must hold each time.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use mainstem_broker::{Broker, Caller};
use mainstem_engine::EngineError;
use mainstem_journal::disk::Op;
use mainstem_journal::{JournalError, MemoryDisk};
use mainstem_log::LogError;
use mainstem_store::{MemoryStore, Store};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::actors::{self, Actor};
use crate::clock::Clock;
use crate::coverage::met;
use crate::disk::Control;
use crate::faults::{self, Plan};
use crate::groups::{self, Groups};
use crate::life::{Fibers, Life};
use crate::node::{self, Machine, Node};
use crate::note;
use crate::trace::Trace;
use crate::world::{Client, SharedWorld, World};

/// What every run comes to at least.
const OPERATIONS: u64 = 1_000;
const CRASHES: u32 = 5;
/// Turns after which a run that is to end has not ended.
const TOO_LONG: u64 = 400_000;
/// When the world begins.
const BEGIN_MS: i64 = 1_700_000_000_000;

/// The process dies, and what it has written stays readable.
pub const PROCESS_CRASH: &str = "process crash";
/// The power goes: what was not synced is lost, kept or torn.
pub const POWER_LOSS: &str = "power loss";
/// It took sectors that were written and not synced.
pub const LOST_WRITES: &str = "unsynced sectors lost with the power";
/// It took some sectors of a file, and left others.
pub const TORN_WRITES: &str = "unsynced writes torn by it";
/// It took a sector that lies before one that it left.
pub const REORDERED_WRITES: &str = "unsynced writes that it left out of order";
/// It took what a file had grown by.
pub const LOST_LENGTHS: &str = "unsynced lengths of files lost with it";
/// It took creations, renames and removals.
pub const LOST_NAMES: &str = "unsynced names of files lost with it";
/// The node is stopped and started again.
pub const CLEAN_STOP: &str = "clean stop";
/// Recovery itself is cut short.
pub const RECOVERY_CRASHED: &str = "recovery interrupted by a crash";
/// A file that recovery was building when it died was thrown away by the next.
pub const HALF_BUILT: &str = "half-built new file thrown away";
/// Recovery found a disk without space, said so, and went well later.
pub const RECOVERY_FULL: &str = "recovery refused for want of space";
/// Frames were replayed.
pub const REPLAYED: &str = "frames replayed";
/// A node whose writes had stopped for want of space was closed and opened again in the same process.
pub const OPENED_AGAIN: &str = "opened again when there was space, without a crash";
/// A node whose writes had stopped went on serving reads until its end.
pub const POISONED: &str = "writes stopped by a failure, and recovered";
/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Calls of clients.
    pub operations: u64,
    /// Crashes of both kinds, those in recovery included.
    pub crashes: u32,
}

pub(crate) struct Run {
    pub(crate) rng: SmallRng,
    pub(crate) machine: Machine,
    pub(crate) world: SharedWorld,
    clock: Clock,
    pub(crate) trace: Arc<Trace>,
    fibers: Fibers,
    crashes: u32,
    /// The last life ended in a clean stop, and nothing had gone wrong in it.
    stopped_cleanly: bool,
    /// The disk was full when the node was opened: it takes a moment until the node knows of the space there is now.
    opened_full: bool,
}

/// Runs a seed to its end.
///
/// # Panics
/// Where a promise is broken, saying which.
pub fn run(seed: u64, trace: Arc<Trace>, fibers: Fibers) -> Report {
    let mut run = Run::new(seed, trace, fibers);
    let node = run.begin();
    run.play(node);
    let operations = run.world.borrow().operations;
    Report {
        operations,
        crashes: run.crashes,
    }
}

impl Run {
    fn new(seed: u64, trace: Arc<Trace>, fibers: Fibers) -> Run {
        let mut rng = SmallRng::seed_from_u64(seed);
        let control = Control::new(rng.random(), trace.clone());
        let machine = Machine {
            disk: Arc::new(MemoryDisk::new(rng.random())),
            store: Arc::new(MemoryStore::new(rng.random())),
            control: control.clone(),
            options: node::any_options(&mut rng),
            medium_percent: [100, 100, 50, 15][rng.random_range(0..4)],
            store_read_fails_after: None,
        };
        note!(trace, "{:?}", machine.options);
        Run {
            world: Rc::new(RefCell::new(World::new(control, Groups::new(&mut rng)))),
            rng,
            machine,
            clock: Clock::new(BEGIN_MS),
            trace,
            fibers,
            crashes: 0,
            stopped_cleanly: false,
            opened_full: false,
        }
    }

    /// The first life creates the topics that stay.
    fn begin(&mut self) -> Node {
        let mut node = self
            .machine
            .open(&mut self.rng)
            .unwrap_or_else(|error| panic!("a fresh node: {error}"));
        let client = self.client(&node.broker);
        let setup: Actor = (
            "setup",
            Box::pin(async move {
                for (name, partitions) in actors::TOPICS {
                    let new = actors::new_topic(name, partitions);
                    let now_ms = client.clock.now_ms();
                    let topic = client
                        .broker
                        .create_topic(&client.caller, new, now_ms)
                        .await;
                    let topic = topic.unwrap_or_else(|error| panic!("{name}: {error}"));
                    client.world.borrow_mut().topics.insert(name, topic.id);
                }
            }),
        );
        let workers = std::mem::take(&mut node.workers);
        let mut life = self.life(workers, vec![setup]);
        while !life.is_done() {
            assert!(
                life.turn(&mut self.rng),
                "nothing moves before the first topic is created"
            );
        }
        self.tell_rules();
        self.go_down(node, life, End::Process);
        self.recover()
    }

    /// What frames must keep to, now that the topics have ids.
    fn tell_rules(&self) {
        let world = self.world.borrow();
        let rules = &world.rules;
        let id = |name: &str| world.topics[name];
        rules.input.set(id(actors::INPUT));
        rules.output.set(id(actors::OUTPUT));
        rules.sourced.set(id(actors::SOURCED));
        rules.short.set(id(actors::SHORT));
        rules.short_ms.set(actors::SHORT_MS);
        let tombstones_ms = [
            (id(actors::KEYED), actors::KEYED_TOMBSTONE_MS),
            (id(actors::BOTH), actors::BOTH_TOMBSTONE_MS),
        ];
        rules.tombstones_ms.borrow_mut().extend(tombstones_ms);
        let cut = (id(actors::BOTH), actors::BOTH_BYTES);
        rules.cut.borrow_mut().extend([cut]);
        let kept = [
            actors::INPUT,
            actors::OUTPUT,
            actors::SOURCED,
            actors::KEYED,
            actors::LEDGER,
        ];
        rules.kept.borrow_mut().extend(kept.map(id));
    }

    fn client(&mut self, broker: &Broker) -> Client {
        Client {
            broker: broker.clone(),
            caller: Caller::anonymous(),
            world: self.world.clone(),
            clock: self.clock.clone(),
            rng: SmallRng::seed_from_u64(self.rng.random()),
        }
    }

    fn life(&mut self, workers: Vec<mainstem_engine::Worker>, actors: Vec<Actor>) -> Life {
        let (clock, trace, fibers) = (self.clock.clone(), self.trace.clone(), self.fibers.clone());
        Life::new(workers, actors, clock, trace, fibers, &mut self.rng)
    }

    /// Life after life, until there were enough of everything; then one in which everything comes to its end.
    fn play(&mut self, mut node: Node) {
        while self.crashes < CRASHES || self.world.borrow().operations < OPERATIONS {
            self.live(node, false);
            node = self.recover();
        }
        self.live(node, true);
        let done = |producer: &crate::world::Producer| producer.pending.is_empty();
        assert!(self.world.borrow().producers.iter().all(done));
        if self.rng.random_bool(0.6) {
            // What is damaged then may be in the middle of something.
            node = self.recover();
            self.live(node, false);
        }
        self.damage();
    }

    /// One life, from its beginning to its end.
    fn live(&mut self, mut node: Node, last: bool) {
        let turns = match self.rng.random_range(0..10) {
            _ if last => TOO_LONG,
            0 => self.rng.random_range(0..30),
            1..4 => self.rng.random_range(50..600),
            _ => self.rng.random_range(400..2_500),
        };
        let plan = if last {
            Plan::default()
        } else {
            faults::plan(&mut self.rng, turns)
        };
        note!(self.trace, "a life of {turns} turns: {plan:?}");
        {
            let mut world = self.world.borrow_mut();
            world.stopping = last;
            world.closing = false;
            world.finished = 0;
            world.transactors_finished = 0;
            world.groups.begin_life();
            world.power_goes = false;
            world.squeezed = self.opened_full;
            world.refused_full = false;
        }
        self.machine.control.begin_life();
        self.machine.control.set_slow_percent(plan.slow_percent);
        plan.faults
            .iter()
            .for_each(|fault| self.machine.control.plan(*fault));
        if let Some(calls) = plan.store_fails_after {
            node.store.fail_after(calls, plan.store_is_full);
        }
        if let Some(reads) = plan.store_read_fails_after {
            node.store.fail_read_after(reads);
        }
        let broker = node.broker.clone();
        let running = self.world.borrow().groups.running.clone();
        let actors = actors::all(&running, || self.client(&broker));
        let workers = std::mem::take(&mut node.workers);
        let mut life = self.life(workers, actors);
        for turn in 0..turns {
            self.squeeze(&plan, turn);
            if !life.turn(&mut self.rng) {
                // Everybody waits for a node whose writes have stopped, or has given it up.
                assert!(
                    self.machine.control.has_fired() || life.is_done(),
                    "nothing moves any more"
                );
                break;
            }
            self.watch(&broker);
            let given_up = self.machine.control.has_fired() && self.rng.random_ratio(1, 100);
            if given_up || (last && life.is_done()) || self.world.borrow().power_goes {
                break;
            }
        }
        assert!(!last || life.is_done(), "clients do not come to their end");
        if broker.engine().status().poisoned.is_some() {
            met(POISONED);
        }
        let space_is_back = broker.engine().has_space_again();
        drop(broker);
        let end = match self.rng.random_range(0..10) {
            _ if self.world.borrow().power_goes => End::Power,
            0..5 if space_is_back => End::Again,
            0 | 1 => End::Clean,
            2..6 => End::Process,
            _ => End::Power,
        };
        self.go_down(node, life, end);
    }

    /// What is durable now must stay.
    fn watch(&self, broker: &Broker) {
        let durable = broker.engine().durable_lsn();
        self.machine.control.history.lock().shown(durable.0);
        self.world.borrow().rules.now_ms.set(self.clock.now_ms());
    }

    fn squeeze(&mut self, plan: &Plan, turn: u64) {
        for (from, to, left) in &plan.squeezes {
            if *from == turn {
                met(faults::SQUEEZED);
                note!(self.trace, "the disk has {left} bytes left");
                let disk = &self.machine.disk;
                disk.set_capacity(disk.used_bytes() + left);
                self.world.borrow_mut().squeezed = true;
            } else if *to == turn {
                met(faults::RELEASED);
                note!(self.trace, "the disk has space again");
                self.machine.disk.set_capacity(u64::MAX);
            }
        }
    }

    /// Ends a life.
    fn go_down(&mut self, node: Node, mut life: Life, end: End) {
        note!(self.trace, "goes down: {end:?}");
        self.stopped_cleanly = false;
        if matches!(end, End::Clean | End::Again) {
            met(if end == End::Clean {
                CLEAN_STOP
            } else {
                OPENED_AGAIN
            });
            self.world.borrow_mut().closing = true;
            node.broker.engine().close();
            let mut turns = 0;
            while !life.has_stopped() {
                let moved = life.turn(&mut self.rng);
                self.watch(&node.broker);
                turns += 1;
                let broken = self.machine.control.has_fired();
                assert!(
                    moved && turns < TOO_LONG || broken,
                    "the engine does not stop"
                );
                if !moved || turns >= TOO_LONG {
                    break;
                }
            }
            let squeezed = self.world.borrow().squeezed;
            self.stopped_cleanly =
                !self.machine.control.has_fired() && !squeezed && life.has_stopped();
            assert!(
                end == End::Clean || life.has_stopped(),
                "an engine whose writes have stopped does not end"
            );
        }
        node.disk.kill();
        node.store.kill();
        life.end();
        drop(node);
        // Whoever died in the middle of closing did not open anything again.
        if end != End::Again || self.machine.control.is_halted() {
            self.lose(end == End::Power);
        } else {
            // Closing a store may flush what it holds, and need not.
            if self.rng.random_bool(0.5) {
                let _ = self.machine.store.flush();
            }
            self.machine.store.crash();
        }
    }

    /// What the end of the process, or of the power, does to the hardware.
    pub(crate) fn lose(&mut self, power: bool) {
        if power {
            met(POWER_LOSS);
            let lost = self.machine.disk.crash_power(self.rng.random());
            let took = [
                (lost.sectors, LOST_WRITES),
                (lost.torn_files, TORN_WRITES),
                (lost.reordered_files, REORDERED_WRITES),
                (lost.lengths, LOST_LENGTHS),
                (lost.names, LOST_NAMES),
            ];
            for (count, name) in took {
                if count > 0 {
                    met(name);
                }
            }
        } else {
            met(PROCESS_CRASH);
            self.machine.disk.crash_process();
        }
        self.crashes += 1;
        self.machine.store.crash();
    }

    /// Brings the node back, however often that is cut short, and checks what it shows.
    fn recover(&mut self) -> Node {
        loop {
            self.machine.control.begin_life();
            if self.rng.random_bool(0.3) {
                let fault = if self.rng.random_bool(0.6) {
                    faults::halt(&mut self.rng, 60)
                } else {
                    faults::failure(&mut self.rng, 40)
                };
                self.machine.control.plan(fault);
            }
            self.machine.store_read_fails_after = self
                .rng
                .random_bool(0.05)
                .then(|| self.rng.random_range(0..4));
            // The node may be set up differently from now on.
            if self.rng.random_bool(0.15) {
                self.machine.options = node::any_options(&mut self.rng);
                if self.rng.random_bool(0.1) {
                    self.machine.control.plan(faults::next(Op::SetLen));
                }
            }
            // What the last attempt was building when it died is thrown away by this one.
            if self.machine.control.take_half_built() {
                met(HALF_BUILT);
            }
            let squeezed = self.world.borrow().squeezed;
            let full = self.rng.random_bool(if squeezed { 0.5 } else { 0.04 });
            self.machine.disk.set_capacity(if full {
                self.machine.disk.used_bytes() + self.rng.random_range(0..64 << 10)
            } else {
                u64::MAX
            });
            let opened = self.machine.open(&mut self.rng);
            self.machine.store_read_fails_after = None;
            let fired = self.machine.control.has_fired();
            let halted = self.machine.control.is_halted();
            self.machine.control.disarm();
            if full {
                self.machine.disk.set_capacity(u64::MAX);
            }
            match opened {
                Ok(node) if !halted => {
                    self.opened_full = full;
                    self.check(&node);
                    return node;
                }
                Ok(node) => {
                    node.disk.kill();
                    node.store.kill();
                    met(RECOVERY_CRASHED);
                }
                Err(error) => {
                    note!(self.trace, "recovery: {error}");
                    assert!(!is_damage(&error), "nothing is damaged, but: {error}");
                    assert!(
                        fired || (full && error.is_full()),
                        "recovery fails: {error}"
                    );
                    met(if fired {
                        RECOVERY_CRASHED
                    } else {
                        RECOVERY_FULL
                    });
                }
            }
            let power = self.rng.random_bool(0.5);
            self.lose(power);
        }
    }

    /// Everything that must hold after a restart.
    fn check(&mut self, node: &Node) {
        let recovery = node.recovery;
        note!(self.trace, "recovered: {recovery:?}");
        if recovery.replayed_frames > 0 {
            met(REPLAYED);
        }
        assert!(
            !self.stopped_cleanly || recovery.replayed_frames == 0,
            "{} frames are replayed after a clean stop",
            recovery.replayed_frames
        );
        self.stopped_cleanly = false;
        let mut world = self.world.borrow_mut();
        world.rules.now_ms.set(self.clock.now_ms());
        self.machine
            .control
            .history
            .lock()
            .recovered(recovery.last.0);
        world.look_at(recovery.last.0);
        let engine = node.broker.engine();
        let max_bytes = self.rng.random_range(0..8_000);
        let compared = world.views.compare_log(engine.log(), max_bytes);
        let compared =
            compared.and_then(|()| world.views.compare_times(engine.log(), &mut self.rng));
        compared.unwrap_or_else(|error| panic!("after recovery: {error}"));
        let compared = world.views.compare_store(&**engine.store());
        compared.unwrap_or_else(|error| panic!("after recovery: {error}"));
        world.verify();
        let (broker, caller) = (&node.broker, Caller::anonymous());
        groups::compare(&world.views, broker, &caller, &world.groups.running);
    }
}

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Clean,
    /// As a node does by itself whose writes had stopped for want of space.
    Again,
    Process,
    Power,
}

/// Whether an error says that bytes are not what was written.
pub fn is_damage(error: &EngineError) -> bool {
    match error {
        EngineError::Damaged(_) => true,
        EngineError::Journal(error) => matches!(
            **error,
            JournalError::Damaged { .. }
                | JournalError::ViewAhead { .. }
                | JournalError::ForeignFile { .. }
                | JournalError::ForeignViews { .. }
                | JournalError::NewerVersion { .. }
        ),
        EngineError::Log(error) => !matches!(**error, LogError::Io { .. } | LogError::Poisoned),
        _ => false,
    }
}
