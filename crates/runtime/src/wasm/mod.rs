//! Components: the [`crate::HandlerModule`] that wasmtime runs.
//!
//! `host.rs` is what a component may import, `validate.rs` what is said about one that is refused, `packed.rs` and
//! `typed.rs` the two worlds, `cache.rs` the files in `modules/`.

mod cache;
mod host;
mod packed;
mod typed;
mod validate;

use std::sync::Arc;

use wasmtime::component::{Component, Instance, InstancePre, Linker};
use wasmtime::{Config, Engine, OptLevel, Store};

pub(crate) use cache::{DIGEST_BYTES, Installed, ModuleFile, ModuleStore, hex};
use host::Host;

use crate::{
    Event, HandlerInstance, HandlerModule, InstanceMemory, StepFailure, StepFuture, StepLimits,
    StepOutput, StepState, ValidationError, run_through,
};

/// Fuel for a component's own start, before its first event.
const START_FUEL: u64 = 1_000_000_000;
/// Fuel after which others have a turn: about a millisecond.
const SLICE_FUEL: u64 = 2_000_000;

/// What wasmtime says of a call that hands over more than [`Host::copy_bytes`].
const COPIES_TOO_MUCH: &str = "fuel allocated for hostcalls has been exhausted";

/// Compiles components. One is enough for a process; cheap to clone.
#[derive(Clone)]
pub struct WasmEngine {
    engine: Engine,
    linker: Arc<Linker<Host>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum World {
    Typed,
    Packed,
}

impl World {
    fn export(self) -> &'static str {
        match self {
            World::Typed => "step",
            World::Packed => "step-packed",
        }
    }
}

impl WasmEngine {
    /// An engine for this machine.
    pub fn new() -> Result<WasmEngine, ValidationError> {
        let broken = |error: wasmtime::Error| ValidationError::Invalid {
            reason: format!("WebAssembly cannot run on this machine: {error:#}"),
        };
        let mut config = Config::new();
        config
            .wasm_component_model(true)
            .concurrency_support(false)
            .consume_fuel(true)
            .cranelift_opt_level(OptLevel::Speed);
        let engine = Engine::new(&config).map_err(broken)?;
        let linker = Arc::new(host::linker(&engine).map_err(broken)?);
        Ok(WasmEngine { engine, linker })
    }

    /// Compiles a component and checks that it can be a handler: its world, its imports, that it starts.
    pub fn compile(&self, bytes: &[u8], memory_bytes: u64) -> Result<WasmModule, ValidationError> {
        validate::check_form(bytes)?;
        let component =
            Component::new(&self.engine, bytes).map_err(|error| ValidationError::Invalid {
                reason: format!("{error:#}"),
            })?;
        self.link(component, memory_bytes)
    }

    fn link(&self, component: Component, memory_bytes: u64) -> Result<WasmModule, ValidationError> {
        let world = validate::check_world(&self.engine, &component)?;
        let pre = self.linker.instantiate_pre(&component).map_err(|error| {
            ValidationError::WrongWorld {
                missing: format!("{error:#}"),
            }
        })?;
        let module = WasmModule {
            component,
            pre,
            world,
            memory_bytes,
        };
        let started = run_through(module.start("validation", InstanceMemory::unlimited()));
        let started = started.map_err(|failure| ValidationError::Instantiation {
            reason: failure.to_string(),
        })?;
        module.check_export(started)?;
        Ok(module)
    }
}

/// A compiled component.
#[derive(Clone)]
pub struct WasmModule {
    component: Component,
    pre: InstancePre<Host>,
    world: World,
    memory_bytes: u64,
}

impl WasmModule {
    async fn start(
        &self,
        label: &str,
        memory: InstanceMemory,
    ) -> Result<(Store<Host>, Instance), StepFailure> {
        let host = Host::new(label, self.memory_bytes, memory);
        let mut store = Store::new(self.pre.engine(), host);
        store.limiter(|host| &mut host.memory);
        store.set_hostcall_fuel(store.data().copy_bytes());
        let started = async {
            store.fuel_async_yield_interval(Some(SLICE_FUEL))?;
            store.set_fuel(START_FUEL)?;
            self.pre.instantiate_async(&mut store).await
        };
        let started = started.await;
        match (store.data_mut().memory.wanted_bytes(), started) {
            (_, Ok(instance)) => Ok((store, instance)),
            (Some(wanted_bytes), Err(_)) => Err(StepFailure::NoMemory { wanted_bytes }),
            (None, Err(error)) => Err(StepFailure::Trap(format!("{error:#}"))),
        }
    }

    fn check_export(
        &self,
        (mut store, instance): (Store<Host>, Instance),
    ) -> Result<(), ValidationError> {
        let name = self.world.export();
        let wrong = |error: &dyn std::fmt::Display| ValidationError::WrongWorld {
            missing: format!("its export `{name}` is not the one of the contract ({error})"),
        };
        let function = instance
            .get_func(&mut store, name)
            .ok_or_else(|| wrong(&"it is no function"))?;
        match self.world {
            World::Typed => typed::check(&function, &store).map_err(|error| wrong(&error)),
            World::Packed => packed::check(&function, &store).map_err(|error| wrong(&error)),
        }
    }
}

impl HandlerModule for WasmModule {
    fn instantiate<'a>(
        &'a self,
        label: &'a str,
        memory: InstanceMemory,
    ) -> StepFuture<'a, Box<dyn HandlerInstance>> {
        Box::pin(async move {
            let (mut store, instance) = self.start(label, memory).await?;
            let function = instance
                .get_func(&mut store, self.world.export())
                .ok_or_else(|| {
                    StepFailure::Trap(format!("the export `{}` is gone", self.world.export()))
                })?;
            let instance: Box<dyn HandlerInstance> = match self.world {
                World::Typed => Box::new(typed::TypedInstance { store, function }),
                World::Packed => Box::new(packed::PackedInstance::new(store, function)),
            };
            Ok(instance)
        })
    }
}

/// A component's host with a step's state in it, until it is dropped: also where the step is dropped half way.
struct Lent<'a> {
    store: &'a mut Store<Host>,
    state: Option<&'a mut StepState>,
    limits: StepLimits,
}

impl<'a> Lent<'a> {
    fn new(
        store: &'a mut Store<Host>,
        state: &'a mut StepState,
        limits: StepLimits,
    ) -> Result<Lent<'a>, StepFailure> {
        store
            .set_fuel(limits.fuel)
            .map_err(|error| StepFailure::Host(format!("{error:#}")))?;
        store.data_mut().begin(state, limits.fuel);
        Ok(Lent {
            store,
            state: Some(state),
            limits,
        })
    }

    /// Gives the state back; answers what the handler has said last.
    fn give_back(&mut self) -> Option<String> {
        self.store.data_mut().end(self.state.take()?)
    }

    /// What has become of the call, in the words of a step.
    fn outcome<R>(mut self, result: wasmtime::Result<Result<R, String>>) -> Result<R, StepFailure> {
        let said = self.give_back();
        let error = match result {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(message)) => return Err(StepFailure::Error(message)),
            Err(error) => error,
        };
        if let Some(wanted_bytes) = self.store.data().memory.wanted_bytes() {
            return Err(StepFailure::NoMemory { wanted_bytes });
        }
        // wasmtime has no type for it.
        let cause = error.root_cause().to_string();
        if cause.contains(COPIES_TOO_MUCH) {
            return Err(StepFailure::TooLarge(self.store.data().copies_too_much()));
        }
        Err(match error.downcast_ref::<wasmtime::Trap>() {
            Some(wasmtime::Trap::OutOfFuel) => StepFailure::OutOfFuel {
                fuel: self.limits.fuel,
            },
            Some(wasmtime::Trap::UnreachableCodeReached) if said.is_some() => {
                StepFailure::Trap(said.unwrap_or_default())
            }
            Some(trap) => StepFailure::Trap(trap.to_string()),
            None => StepFailure::Trap(cause),
        })
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl HandlerInstance for typed::TypedInstance {
    fn step<'a>(
        &'a mut self,
        events: &'a [Event],
        state: &'a mut StepState,
        limits: StepLimits,
    ) -> StepFuture<'a, StepOutput> {
        Box::pin(async move {
            let lent = Lent::new(&mut self.store, state, limits)?;
            let result = typed::call(lent.store, self.function, events).await;
            typed::outputs(lent.outcome(result)?, limits)
        })
    }
}

impl HandlerInstance for packed::PackedInstance {
    fn step<'a>(
        &'a mut self,
        events: &'a [Event],
        state: &'a mut StepState,
        limits: StepLimits,
    ) -> StepFuture<'a, StepOutput> {
        Box::pin(async move {
            self.pack(events);
            let lent = Lent::new(&mut self.store, state, limits)?;
            let result = packed::call(lent.store, self.function, &self.buffer).await;
            packed::unpack(lent.outcome(result)?.into(), limits)
        })
    }
}
