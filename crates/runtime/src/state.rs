//! The overlay: a task's state as a step sees it, from what it has written itself down to what the store holds.
//!
//! ```text
//!   get ──► this step's changes ──► changes of steps on their way ──► the store
//!           └──────────────── one map ─────────────────┘
//! ```
//!
//! A task is the only writer of its keys, so what the map does not know stands in the store as it is. A change leaves
//! the map when the frame that carries it is visible in the store, unless a later step has changed the key again.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytes::Bytes;
use mainstem_store::{Family, StoreOp, StoreSnapshot, prefix_end};

use crate::keys;

pub(crate) const MAX_TABLE_NAME_BYTES: usize = 255;
pub(crate) const MAX_KEY_BYTES: usize = 64 << 10;
const MAX_SCAN_BYTES: usize = 4 << 20;
/// Values that one [`StepState::get_many`] hands out at most.
const MAX_GET_MANY_BYTES: usize = 16 << 20;
/// Keys that are read of the store before what was found is counted: RocksDB itself reads no more at a time.
const KEYS_PER_READ: usize = 32;
const NO_STEP: &str = "state can only be used while an event is handled";

/// The state of one task, during a step. Every error is a message for the handler's author or the operator; reading
/// errors of the store are remembered besides, so that they are never blamed on an event.
#[derive(Default)]
pub struct StepState {
    store: Option<Arc<dyn StoreSnapshot>>,
    /// What all keys of the task begin with.
    prefix: Bytes,
    /// The key last asked for, the table it is of, and where in it the table's prefix ends.
    scratch: Vec<u8>,
    scratch_table: String,
    scratch_prefix_bytes: usize,
    changes: HashMap<Bytes, Change>,
    /// The keys of the changes in order, for handlers that scan; there from the first scan on.
    ordered: Option<BTreeSet<Bytes>>,
    /// Steps begun so far; the number of the one under way.
    step: u64,
    ops: Vec<StoreOp>,
    undo: Vec<(Bytes, Option<Change>)>,
    op_bytes: usize,
    max_op_bytes: usize,
    store_failure: Option<String>,
    /// What the step has read or changed too much of: with fewer events it may fit.
    over_limit: Option<String>,
}

struct Change {
    value: Option<Bytes>,
    step: u64,
    /// Where among the operations of its step.
    op: usize,
}

/// The changes of a step that is on its way: what [`StepState::forget`] wants back.
#[derive(Debug)]
pub(crate) struct StepChanges {
    pub(crate) step: u64,
    pub(crate) keys: Vec<Bytes>,
}

impl StepState {
    /// The state of a task: of handler `handler` and partition `partition`, whose keys lie in `shard`. A step may
    /// change `max_change_bytes` at most.
    pub fn new(
        store: Arc<dyn StoreSnapshot>,
        shard: u16,
        handler: u64,
        partition: u32,
        max_change_bytes: usize,
    ) -> StepState {
        StepState {
            store: Some(store),
            prefix: keys::state_prefix(shard, handler, partition),
            max_op_bytes: max_change_bytes,
            ..StepState::default()
        }
    }

    /// The value of a key.
    pub fn get(&mut self, table: &str, key: &[u8]) -> Result<Option<Bytes>, String> {
        self.locate(table, key)?;
        if let Some(change) = self.changes.get(self.scratch.as_slice()) {
            return Ok(change.value.clone());
        }
        let found = self.store()?.get(Family::State, &self.scratch);
        found.map_err(|error| self.store_failed(&error))
    }

    /// The values of many keys, in the order asked. More than 16 MiB of them is an error, and the step's failure.
    pub fn get_many(&mut self, table: &str, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, String> {
        let mut values = Vec::with_capacity(keys.len());
        let mut missing = Vec::new();
        let mut arena: Vec<u8> = Vec::new();
        let mut bytes = 0;
        for key in keys {
            self.locate(table, key)?;
            match self.changes.get(self.scratch.as_slice()) {
                Some(change) => {
                    bytes += change.value.as_ref().map_or(0, Bytes::len);
                    values.push(change.value.clone());
                }
                None => {
                    missing.push((values.len(), arena.len()..arena.len() + self.scratch.len()));
                    arena.extend_from_slice(&self.scratch);
                    values.push(None);
                }
            }
        }
        let mut missing: Vec<(usize, &[u8])> = missing
            .into_iter()
            .map(|(place, range)| (place, arena.get(range).unwrap_or_default()))
            .collect();
        // In order, so that the store finds each near the one before.
        sort_by_key_bytes(&mut missing, |(_, key)| key);
        for some in missing.chunks(KEYS_PER_READ) {
            self.bound_get_many(table, bytes)?;
            let wanted: Vec<&[u8]> = some.iter().map(|(_, key)| *key).collect();
            let found = self
                .store()?
                .get_many(Family::State, &wanted)
                .map_err(|error| self.store_failed(&error))?;
            for ((place, _), value) in some.iter().zip(found) {
                bytes += value.as_ref().map_or(0, Bytes::len);
                if let Some(slot) = values.get_mut(*place) {
                    *slot = value;
                }
            }
        }
        self.bound_get_many(table, bytes)?;
        Ok(values)
    }

    fn bound_get_many(&mut self, table: &str, bytes: usize) -> Result<(), String> {
        if bytes <= MAX_GET_MANY_BYTES {
            return Ok(());
        }
        let message = format!(
            "the keys asked for at once in table `{table}` have more than {MAX_GET_MANY_BYTES} bytes of values; ask for fewer"
        );
        Err(self.too_large(message))
    }

    /// Takes note that the step does too much at once, in these words: with fewer events it may not.
    pub(crate) fn too_large(&mut self, message: String) -> String {
        self.over_limit = Some(message.clone());
        message
    }

    /// Sets a key.
    pub fn put(&mut self, table: &str, key: &[u8], value: impl Into<Bytes>) -> Result<(), String> {
        self.change(table, key, Some(value.into()))
    }

    /// Removes a key; one that is not there is no error.
    pub fn delete(&mut self, table: &str, key: &[u8]) -> Result<(), String> {
        self.change(table, key, None)
    }

    /// At most `limit` keys of a table at or above `start` and below `end`, in order, with their values.
    pub fn scan(
        &mut self,
        table: &str,
        start: &[u8],
        end: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, String> {
        self.locate(table, start)?;
        let from = self.scratch.clone();
        let key_at = self.scratch_prefix_bytes;
        let to = match end {
            Some(end) => {
                self.locate(table, end)?;
                Some(self.scratch.clone())
            }
            None => prefix_end(from.get(..key_at).unwrap_or_default()),
        };
        if limit == 0 || to.as_ref().is_some_and(|to| *to <= from) {
            return Ok(Vec::new());
        }
        let (changes, ordered) = (&self.changes, &mut self.ordered);
        let ordered = ordered.get_or_insert_with(|| changes.keys().cloned().collect());
        let upper = to.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut changed = ordered
            .range::<[u8], _>((Bound::Included(from.as_slice()), upper))
            .filter_map(|key| changes.get_key_value(key))
            .peekable();
        let mut found = Found {
            key_at,
            limit,
            bytes: 0,
            entries: Vec::new(),
        };
        let store = self.store.as_ref().ok_or(NO_STEP)?;
        let scanned = store
            .scan(Family::State, &from, to.as_deref(), &mut |key, value| {
                while let Some((changed_key, change)) =
                    changed.next_if(|(changed_key, _)| changed_key.as_ref() <= key)
                {
                    if let Some(value) = &change.value {
                        found.push(changed_key, value);
                    }
                    if changed_key.as_ref() == key {
                        return found.go_on();
                    }
                    if found.go_on().is_break() {
                        return ControlFlow::Break(());
                    }
                }
                found.push(key, value);
                found.go_on()
            })
            .map_err(|error| format!("the state could not be read: {error}"));
        if let Err(message) = scanned {
            self.store_failure = Some(message.clone());
            return Err(message);
        }
        while found.go_on().is_continue()
            && let Some((key, change)) = changed.next()
        {
            if let Some(value) = &change.value {
                found.push(key, value);
            }
        }
        if found.bytes > MAX_SCAN_BYTES {
            return Err(format!(
                "a scan of table `{table}` found more than {MAX_SCAN_BYTES} bytes; use a smaller limit"
            ));
        }
        Ok(found.entries)
    }

    /// Ends the step well: its changes as operations, and what to forget once they are visible in the store.
    pub(crate) fn commit(&mut self) -> (Vec<StoreOp>, StepChanges) {
        self.undo.clear();
        self.op_bytes = 0;
        let mut ops = std::mem::take(&mut self.ops);
        // In the order of keys they go into an ordered store at neighbouring places: half the work for many keys. Each
        // key stands here once, so their order means nothing else.
        sort_by_key_bytes(&mut ops, |op| &op.key);
        let changes = StepChanges {
            step: self.step,
            keys: ops.iter().map(|op| op.key.clone()).collect(),
        };
        self.step += 1;
        (ops, changes)
    }

    /// Undoes the step.
    pub(crate) fn roll_back(&mut self) {
        for (key, before) in self.undo.drain(..).rev() {
            match before {
                Some(change) => {
                    self.changes.insert(key, change);
                }
                None => {
                    self.changes.remove(&key);
                    if let Some(ordered) = &mut self.ordered {
                        ordered.remove(&key);
                    }
                }
            }
        }
        self.ops.clear();
        self.op_bytes = 0;
        // Of a step that was dropped half way: nobody has asked, and the next event is not judged for it.
        self.over_limit = None;
        self.store_failure = None;
        self.step += 1;
    }

    /// The store shows the changes of a step.
    pub(crate) fn forget(&mut self, applied: StepChanges) {
        for key in applied.keys {
            if let Entry::Occupied(change) = self.changes.entry(key)
                && change.get().step == applied.step
            {
                let (key, _) = change.remove_entry();
                if let Some(ordered) = &mut self.ordered {
                    ordered.remove(&key);
                }
            }
        }
    }

    /// Bytes that the step under way has changed.
    pub(crate) fn change_bytes(&self) -> usize {
        self.op_bytes
    }

    /// What the step has read or changed more of than it may.
    pub(crate) fn take_over_limit(&mut self) -> Option<String> {
        self.over_limit.take()
    }

    /// The store's error that a step has met, if one has.
    pub(crate) fn take_store_failure(&mut self) -> Option<String> {
        self.store_failure.take()
    }

    fn change(&mut self, table: &str, key: &[u8], value: Option<Bytes>) -> Result<(), String> {
        self.locate(table, key)?;
        let size = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
        let added = size(&value);
        let key = Bytes::copy_from_slice(&self.scratch);
        match self.changes.entry(key) {
            Entry::Occupied(mut found) if found.get().step == self.step => {
                let change = found.get_mut();
                self.op_bytes = self.op_bytes.saturating_sub(size(&change.value)) + added;
                if let Some(op) = self.ops.get_mut(change.op) {
                    op.value.clone_from(&value);
                }
                change.value = value;
            }
            entry => {
                let key = entry.key().clone();
                self.op_bytes += key.len() + added;
                let change = Change {
                    value: value.clone(),
                    step: self.step,
                    op: self.ops.len(),
                };
                self.ops.push(StoreOp {
                    family: Family::State,
                    key: key.clone(),
                    value,
                });
                let before = match entry {
                    Entry::Occupied(mut found) => Some(found.insert(change)),
                    Entry::Vacant(free) => {
                        free.insert(change);
                        if let Some(ordered) = &mut self.ordered {
                            ordered.insert(key.clone());
                        }
                        None
                    }
                };
                self.undo.push((key, before));
            }
        }
        if self.op_bytes > self.max_op_bytes {
            let message = format!(
                "the step changes more than {} bytes of state",
                self.max_op_bytes
            );
            return Err(self.too_large(message));
        }
        Ok(())
    }

    /// Makes the scratch the key in the store.
    fn locate(&mut self, table: &str, key: &[u8]) -> Result<(), String> {
        if self.scratch.is_empty() || self.scratch_table != table {
            if table.is_empty() || table.len() > MAX_TABLE_NAME_BYTES {
                return Err(format!(
                    "a table's name must have 1 to {MAX_TABLE_NAME_BYTES} bytes"
                ));
            }
            self.scratch.clear();
            self.scratch.extend_from_slice(&self.prefix);
            self.scratch
                .extend_from_slice(&(table.len() as u16).to_be_bytes());
            self.scratch.extend_from_slice(table.as_bytes());
            self.scratch_prefix_bytes = self.scratch.len();
            self.scratch_table.clear();
            self.scratch_table.push_str(table);
        }
        if key.len() > MAX_KEY_BYTES {
            return Err(format!(
                "a key of table `{table}` is longer than {MAX_KEY_BYTES} bytes"
            ));
        }
        self.scratch.truncate(self.scratch_prefix_bytes);
        self.scratch.extend_from_slice(key);
        Ok(())
    }

    fn store(&self) -> Result<&Arc<dyn StoreSnapshot>, String> {
        Ok(self.store.as_ref().ok_or(NO_STEP)?)
    }

    fn store_failed(&mut self, error: &dyn std::fmt::Display) -> String {
        let message = format!("the state could not be read: {error}");
        self.store_failure = Some(message.clone());
        message
    }
}

/// Sorts by keys that mostly begin alike. What they have in common is compared once, and of the rest a number is looked
/// at first: sorting then hardly ever follows a pointer.
fn sort_by_key_bytes<T>(items: &mut Vec<T>, key: impl Fn(&T) -> &[u8]) {
    let Some(first) = items.first().map(&key) else {
        return;
    };
    let common = items.iter().fold(first.len(), |common, item| {
        let pairs = first.iter().zip(key(item)).take(common);
        pairs.take_while(|(a, b)| a == b).count()
    });
    let head = |item: &T| {
        let rest = key(item).get(common..).unwrap_or_default();
        let bytes = rest.iter().copied().chain(std::iter::repeat(0));
        bytes
            .take(8)
            .fold(0u64, |head, byte| head << 8 | u64::from(byte))
    };
    let mut sorted: Vec<(u64, T)> = std::mem::take(items)
        .into_iter()
        .map(|item| (head(&item), item))
        .collect();
    sorted.sort_unstable_by(|(a, x), (b, y)| a.cmp(b).then_with(|| key(x).cmp(key(y))));
    items.extend(sorted.into_iter().map(|(_, item)| item));
}

struct Found {
    key_at: usize,
    limit: usize,
    bytes: usize,
    entries: Vec<(Bytes, Bytes)>,
}

impl Found {
    fn push(&mut self, key: &[u8], value: &[u8]) {
        let key = key.get(self.key_at..).unwrap_or_default();
        self.bytes += key.len() + value.len();
        self.entries
            .push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
    }

    fn go_on(&self) -> ControlFlow<()> {
        match self.entries.len() < self.limit && self.bytes <= MAX_SCAN_BYTES {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use mainstem_store::{Applied, MemoryStore, Store};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn state(store: &Arc<MemoryStore>) -> StepState {
        StepState::new(store.clone(), 3, 7, 1, 1 << 20)
    }

    #[test]
    fn a_step_sees_its_own_writes_and_a_failed_one_leaves_none() {
        let store = Arc::new(MemoryStore::new(1));
        let mut state = state(&store);
        state.put("t", b"a", "1").unwrap();
        state.put("t", b"a", "2").unwrap();
        assert_eq!(state.get("t", b"a").unwrap().unwrap(), "2");
        let (ops, first) = state.commit();
        assert_eq!(ops.len(), 1, "a key changed twice is one operation");
        state.put("t", b"a", "3").unwrap();
        state.delete("t", b"a").unwrap();
        state.put("t", b"b", "4").unwrap();
        state.roll_back();
        assert_eq!(state.get("t", b"a").unwrap().unwrap(), "2");
        assert_eq!(state.get("t", b"b").unwrap(), None);
        state.put("t", b"a", "5").unwrap();
        let (_, second) = state.commit();
        state.forget(first);
        assert_eq!(
            state.get("t", b"a").unwrap().unwrap(),
            "5",
            "a later step has changed it again"
        );
        state.forget(second);
        assert_eq!(state.get("t", b"a").unwrap(), None, "the store decides now");
    }

    #[test]
    fn what_is_overwritten_in_a_step_counts_once() {
        let store = Arc::new(MemoryStore::new(1));
        let mut state = state(&store);
        for _ in 0..100 {
            state.put("t", b"a", vec![0; 100_000]).unwrap();
        }
        assert!(state.change_bytes() < 101_000);
        assert!(state.put("t", b"b", vec![0; 1 << 20]).is_err());
        assert!(state.take_over_limit().is_some());
    }

    #[test]
    fn the_values_of_many_keys_are_bounded() {
        let store = Arc::new(MemoryStore::new(1));
        let mut state = StepState::new(store.clone(), 3, 7, 1, 64 << 20);
        state.put("t", b"large", vec![0; 1 << 20]).unwrap();
        let (ops, changes) = state.commit();
        let one = || vec![b"large".as_slice(); 1];
        let many = || vec![b"large".as_slice(); 100_000];
        assert_eq!(state.get_many("t", &one()).unwrap().len(), 1);
        assert!(state.get_many("t", &many()).unwrap_err().contains("fewer"));
        assert!(state.take_over_limit().is_some());
        // The same where the store has it.
        let applied = Applied {
            journal_id: 1,
            lsn: 1,
        };
        store.write(&ops, applied).unwrap();
        state.forget(changes);
        assert_eq!(state.get_many("t", &one()).unwrap().len(), 1);
        assert!(state.get_many("t", &many()).unwrap_err().contains("fewer"));
        assert!(state.take_over_limit().is_some() && state.take_store_failure().is_none());
    }

    proptest! {
        #[test]
        fn sorting_by_heads_is_sorting(mut keys in proptest::collection::vec(proptest::collection::vec(0u8..3, 0..14), 0..60)) {
            let mut expected = keys.clone();
            expected.sort();
            sort_by_key_bytes(&mut keys, |key| key);
            prop_assert_eq!(keys, expected);
        }
    }

    #[test]
    fn limits_are_said_in_words() {
        let store = Arc::new(MemoryStore::new(1));
        let mut state = state(&store);
        assert!(state.get("", b"a").unwrap_err().contains("name"));
        assert!(
            state
                .get("t", &vec![0; MAX_KEY_BYTES + 1])
                .unwrap_err()
                .contains("longer")
        );
        assert!(
            state
                .put("t", b"a", vec![0; 2 << 20])
                .unwrap_err()
                .contains("more than")
        );
        assert!(
            state.take_store_failure().is_none(),
            "none of this is the store's fault"
        );
    }

    #[derive(Clone, Debug)]
    enum Act {
        Put(u8, u8, u8),
        Delete(u8, u8),
        Commit,
        RollBack,
        Apply,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            6 => (0u8..2, 0u8..12, any::<u8>()).prop_map(|(table, key, value)| Act::Put(table, key, value)),
            3 => (0u8..2, 0u8..12).prop_map(|(table, key)| Act::Delete(table, key)),
            2 => Just(Act::Commit),
            1 => Just(Act::RollBack),
            2 => Just(Act::Apply),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn the_overlay_reads_as_one_map_would(acts in proptest::collection::vec(act(), 1..80)) {
            let store = Arc::new(MemoryStore::new(1));
            let mut state = state(&store);
            let mut committed: BTreeMap<(u8, u8), u8> = BTreeMap::new();
            let mut model = committed.clone();
            let mut on_their_way = std::collections::VecDeque::new();
            let mut lsn = 0;
            for act in acts {
                match act {
                    Act::Put(table, key, value) => {
                        state.put(&table.to_string(), &[key], vec![value]).unwrap();
                        model.insert((table, key), value);
                    }
                    Act::Delete(table, key) => {
                        state.delete(&table.to_string(), &[key]).unwrap();
                        model.remove(&(table, key));
                    }
                    Act::Commit => {
                        on_their_way.push_back(state.commit());
                        committed = model.clone();
                    }
                    Act::RollBack => {
                        state.roll_back();
                        model = committed.clone();
                    }
                    Act::Apply => if let Some((ops, changes)) = on_their_way.pop_front() {
                        lsn += 1;
                        store.write(&ops, Applied { journal_id: 1, lsn }).unwrap();
                        state.forget(changes);
                    }
                }
                for table in 0..2u8 {
                    let name = table.to_string();
                    for key in 0..12 {
                        let expected = model.get(&(table, key)).map(|value| Bytes::from(vec![*value]));
                        prop_assert_eq!(state.get(&name, &[key]).unwrap(), expected);
                    }
                    let all = state.scan(&name, &[], None, 100).unwrap();
                    let expected: Vec<_> = model.range((table, 0)..=(table, 255))
                        .map(|((_, key), value)| (Bytes::from(vec![*key]), Bytes::from(vec![*value])))
                        .collect();
                    prop_assert_eq!(&all, &expected);
                    let some = state.scan(&name, &[3], Some(&[9]), 3).unwrap();
                    let within: Vec<_> = expected.into_iter().filter(|(key, _)| (3..9).contains(&key[0])).take(3).collect();
                    prop_assert_eq!(some, within);
                }
            }
        }
    }
}
