//! What a component may import: its state, and a log. Nothing else is there.

use std::future::Future;

use bytes::Bytes;
use wasmtime::component::{ComponentType, Lift, Linker, WasmList, WasmStr};
use wasmtime::{Engine, ResourceLimiter, Result, StoreContextMut, Trap, format_err};

use super::SLICE_FUEL;
use crate::executor::yield_now;
use crate::state::{MAX_KEY_BYTES, MAX_TABLE_NAME_BYTES};
use crate::{InstanceMemory, StepState};

/// The interfaces on offer, by their full names.
pub(super) const STATE: &str = "mainstem:handler/state@0.1.0";
pub(super) const LOG: &str = "mainstem:handler/log@0.1.0";
pub(super) const TYPES: &str = "mainstem:handler/types@0.1.0";

const MAX_LOG_LINES_PER_STEP: u32 = 100;
const MAX_LOG_LINE_BYTES: usize = 4096;

/// What a call of the host is taken for, in fuel, so that a step which does nothing else ends as well and has others
/// between: each call and each key, and the bytes that one unit moves.
const CALL_FUEL: u64 = 500;
const BYTES_PER_FUEL: u64 = 8;
/// Keys of one `get-many` at most, in bytes, each taken for what the host holds for it meanwhile.
const MAX_GET_MANY_KEY_BYTES: usize = 16 << 20;
const GET_MANY_BYTES_PER_KEY: usize = 128;
/// What the host copies for one call at most, whatever memory the handler has: some times the largest outputs of a step.
const MAX_COPY_BYTES: usize = 32 << 20;

/// The host's side of one instance.
pub struct Host {
    pub(super) memory: MemoryLimit,
    label: String,
    /// The task's state, here while a step is under way.
    state: StepState,
    scratch: Vec<u8>,
    /// Fuel that the step may use in the host; the guest's own is counted apart.
    fuel: u64,
    /// Of that, until others have a turn.
    slice_fuel: u64,
    lines: u32,
    /// The last error that the handler has logged in this step: a panic says why before it traps.
    last_error: Option<String>,
}

impl Host {
    pub(super) fn new(label: &str, memory_bytes: u64, memory: InstanceMemory) -> Host {
        Host {
            memory: MemoryLimit {
                limit_bytes: memory_bytes.min(memory.limit_bytes()),
                used_bytes: 0,
                wanted_bytes: None,
                memory,
            },
            label: label.to_owned(),
            state: StepState::default(),
            scratch: Vec::new(),
            fuel: 0,
            slice_fuel: SLICE_FUEL,
            lines: 0,
            last_error: None,
        }
    }

    /// What the host copies out of the component's memory for one call at most. The same bytes may be named many times
    /// over, so the memory alone does not bound it.
    pub(super) fn copy_bytes(&self) -> usize {
        let limit_bytes = usize::try_from(self.memory.limit_bytes).unwrap_or(usize::MAX);
        limit_bytes.min(MAX_COPY_BYTES)
    }

    /// What a call is told that hands over more.
    pub(super) fn copies_too_much(&self) -> String {
        format!(
            "the handler hands over more than {} bytes in one call, as values or as a list of them; its limit of memory is {} bytes, and no call may hand over more than that or than {MAX_COPY_BYTES} bytes",
            self.copy_bytes(),
            self.memory.limit_bytes
        )
    }

    pub(super) fn begin(&mut self, state: &mut StepState, fuel: u64) {
        std::mem::swap(&mut self.state, state);
        self.fuel = fuel;
        self.lines = 0;
        self.last_error = None;
    }

    pub(super) fn end(&mut self, state: &mut StepState) -> Option<String> {
        std::mem::swap(&mut self.state, state);
        if self.lines > MAX_LOG_LINES_PER_STEP {
            let dropped = self.lines - MAX_LOG_LINES_PER_STEP;
            tracing::warn!(target: "mainstem::handler", handler = %self.label, dropped, "too many log lines in one step");
        }
        self.last_error.take()
    }

    /// Takes note of what a call has cost; whether others have a turn now.
    fn charge(&mut self, keys: usize, bytes: usize) -> Result<bool> {
        let cost = CALL_FUEL * (1 + keys as u64) + bytes as u64 / BYTES_PER_FUEL;
        self.fuel = self.fuel.checked_sub(cost).ok_or(Trap::OutOfFuel)?;
        match self.slice_fuel.checked_sub(cost) {
            Some(left) => {
                self.slice_fuel = left;
                Ok(false)
            }
            None => {
                self.slice_fuel = SLICE_FUEL;
                Ok(true)
            }
        }
    }

    fn log(&mut self, level: Level, message: &str) {
        let end = message.floor_char_boundary(MAX_LOG_LINE_BYTES);
        let message = message.get(..end).unwrap_or_default();
        if level == Level::Error {
            self.last_error = Some(message.to_owned());
        }
        self.lines = self.lines.saturating_add(1);
        if self.lines > MAX_LOG_LINES_PER_STEP {
            return;
        }
        let handler = self.label.as_str();
        match level {
            Level::Trace => tracing::trace!(target: "mainstem::handler", handler, "{message}"),
            Level::Debug => tracing::debug!(target: "mainstem::handler", handler, "{message}"),
            Level::Info => tracing::info!(target: "mainstem::handler", handler, "{message}"),
            Level::Warn => tracing::warn!(target: "mainstem::handler", handler, "{message}"),
            Level::Error => tracing::error!(target: "mainstem::handler", handler, "{message}"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
// They are made from a number, by `Lift`.
#[allow(dead_code)]
enum Level {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}

/// Bounds the linear memory of an instance, over all of its memories.
pub(super) struct MemoryLimit {
    limit_bytes: u64,
    used_bytes: u64,
    memory: InstanceMemory,
    /// What was asked for when there was no room, which is nobody's fault.
    wanted_bytes: Option<u64>,
}

impl MemoryLimit {
    pub(super) fn wanted_bytes(&self) -> Option<u64> {
        self.wanted_bytes
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> Result<bool> {
        let grown = self
            .used_bytes
            .saturating_add(desired.saturating_sub(current) as u64);
        if grown > self.limit_bytes {
            // An error instead of a refusal: the handler's last error then names the cause.
            return Err(format_err!(
                "the handler asks for {grown} bytes of memory; its limit is {}: it grows without end, or needs more memory",
                self.limit_bytes
            ));
        }
        if !self.memory.grow(grown) {
            self.wanted_bytes = Some(self.memory.wanted(grown));
            return Err(format_err!("all handlers together have no memory left"));
        }
        self.used_bytes = grown;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> Result<bool> {
        const MAX_TABLE_ELEMENTS: usize = 1 << 20;
        Ok(desired <= MAX_TABLE_ELEMENTS)
    }
}

/// Calls the state with a table and a key that lie in the guest's memory. They are copied once, into a buffer that is
/// kept: the state is in the same store as the memory, so both cannot be borrowed.
fn with_key<R>(
    cx: &mut StoreContextMut<'_, Host>,
    table: &WasmStr,
    key: &WasmList<u8>,
    run: impl FnOnce(&mut StepState, &str, &[u8]) -> Result<R, String>,
) -> Result<R> {
    let mut scratch = std::mem::take(&mut cx.data_mut().scratch);
    scratch.clear();
    // Of what is longer than it may be, so much that it is refused.
    let name = table.to_str(&*cx)?;
    let end = name.floor_char_boundary(MAX_TABLE_NAME_BYTES + 4);
    scratch.extend_from_slice(name.get(..end).unwrap_or_default().as_bytes());
    let table_bytes = scratch.len();
    scratch.extend_from_slice(clipped(key.as_le_slice(&*cx)));
    let (table, key) = scratch.split_at_checked(table_bytes).unwrap_or_default();
    let table = std::str::from_utf8(table)?;
    let result = run(&mut cx.data_mut().state, table, key);
    cx.data_mut().scratch = scratch;
    result.map_err(|message| format_err!("{message}"))
}

/// Of a key that is longer than any may be, so much that it is refused.
fn clipped(key: &[u8]) -> &[u8] {
    key.get(..=MAX_KEY_BYTES).unwrap_or(key)
}

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

type Answer<T> = Box<dyn Future<Output = Result<T>> + Send>;

/// Answers a call, after others have had a turn if it is time.
fn answer<T: Send + 'static>(
    cx: &mut StoreContextMut<'_, Host>,
    result: Result<T>,
    keys: usize,
    bytes: usize,
) -> Answer<T> {
    let turn = cx.data_mut().charge(keys, bytes);
    Box::new(async move {
        if turn? {
            yield_now().await;
        }
        result
    })
}

/// The values of many keys, and how many bytes the keys have.
fn get_many(
    cx: &mut StoreContextMut<'_, Host>,
    table: &str,
    keys: &WasmList<WasmList<u8>>,
) -> Result<(Vec<Option<Vec<u8>>>, usize)> {
    let limit_bytes = cx.data().copy_bytes().min(MAX_GET_MANY_KEY_BYTES);
    let bytes_per_key = GET_MANY_BYTES_PER_KEY + table.len();
    let too_many = |cx: &mut StoreContextMut<'_, Host>| {
        let message = format!(
            "the keys asked for at once come to more than {limit_bytes} bytes, with {bytes_per_key} for each beside its own; ask for fewer"
        );
        Err(format_err!("{}", cx.data_mut().state.too_large(message)))
    };
    let mut bytes = keys.len().saturating_mul(bytes_per_key);
    if bytes > limit_bytes {
        return too_many(cx);
    }
    let keys = keys.iter(&mut *cx)?.collect::<Result<Vec<_>>>()?;
    // One buffer for all keys: the state cannot read them where they lie.
    let mut arena = Vec::new();
    let mut ends = Vec::with_capacity(keys.len());
    for key in &keys {
        let key = clipped(key.as_le_slice(&*cx));
        bytes += key.len();
        if bytes > limit_bytes {
            return too_many(cx);
        }
        arena.extend_from_slice(key);
        ends.push(arena.len());
    }
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let keys: Vec<&[u8]> = starts
        .zip(&ends)
        .map(|(start, end)| arena.get(start..*end).unwrap_or_default())
        .collect();
    let values = cx.data_mut().state.get_many(table, &keys);
    let values = values.map_err(|message| format_err!("{message}"))?;
    let values = values.into_iter().map(|value| value.map(Vec::from));
    Ok((values.collect(), arena.len()))
}

pub(super) fn linker(engine: &Engine) -> Result<Linker<Host>> {
    let mut linker = Linker::new(engine);
    linker.instance(TYPES)?;

    let mut state = linker.instance(STATE)?;
    state.func_wrap_async(
        "get",
        |mut cx: StoreContextMut<'_, Host>, (table, key): (WasmStr, WasmList<u8>)| {
            let value = with_key(&mut cx, &table, &key, StepState::get);
            let value = value.map(|value| (value.map(Vec::from),));
            let found = value.as_ref().ok().and_then(|(value,)| value.as_ref());
            let bytes = found.map_or(0, Vec::len);
            answer(&mut cx, value, 0, key.len() + bytes)
        },
    )?;
    state.func_wrap_async(
        "get-many",
        |mut cx: StoreContextMut<'_, Host>, (table, keys): (String, WasmList<WasmList<u8>>)| {
            let values = get_many(&mut cx, &table, &keys);
            let (found, bytes) = values.as_ref().map_or((0, 0), |(values, key_bytes)| {
                let bytes: usize = values.iter().flatten().map(Vec::len).sum();
                (values.len(), bytes + key_bytes)
            });
            answer(&mut cx, values.map(|(values, _)| (values,)), found, bytes)
        },
    )?;
    state.func_wrap_async(
        "put",
        |mut cx: StoreContextMut<'_, Host>,
         (table, key, value): (WasmStr, WasmList<u8>, WasmList<u8>)| {
            let value = value.as_le_slice(&cx).to_vec();
            let bytes = value.len();
            let put = with_key(&mut cx, &table, &key, |state, table, key| {
                state.put(table, key, value)
            });
            answer(&mut cx, put, 0, key.len() + bytes)
        },
    )?;
    state.func_wrap_async(
        "delete",
        |mut cx: StoreContextMut<'_, Host>, (table, key): (WasmStr, WasmList<u8>)| {
            let deleted = with_key(&mut cx, &table, &key, StepState::delete);
            answer(&mut cx, deleted, 0, key.len())
        },
    )?;
    state.func_wrap_async(
        "scan",
        |mut cx: StoreContextMut<'_, Host>,
         (table, start, end, limit): (String, Vec<u8>, Option<Vec<u8>>, u32)| {
            let state = &mut cx.data_mut().state;
            let found = state.scan(&table, &start, end.as_deref(), limit as usize);
            let found = found.map_err(|message| format_err!("{message}"));
            let (mut keys, mut bytes) = (0, start.len() + end.map_or(0, |end| end.len()));
            let found = found.map(|found| {
                let owned = |(key, value): (Bytes, Bytes)| {
                    keys += 1;
                    bytes += key.len() + value.len();
                    (key.into(), value.into())
                };
                let entries: Entries = found.into_iter().map(owned).collect();
                (entries,)
            });
            answer(&mut cx, found, keys, bytes)
        },
    )?;

    let mut log = linker.instance(LOG)?;
    log.func_wrap_async(
        "write",
        |mut cx: StoreContextMut<'_, Host>, (level, message): (Level, String)| {
            cx.data_mut().log(level, &message);
            answer(&mut cx, Ok(()), 0, message.len())
        },
    )?;
    Ok(linker)
}
