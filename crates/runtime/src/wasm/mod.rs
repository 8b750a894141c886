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

pub(crate) use cache::ModuleStore;
use host::Host;

use crate::{
    Event, HandlerInstance, HandlerModule, StepFailure, StepLimits, StepOutput, StepState,
    ValidationError,
};

/// Fuel for a component's own start, before its first event.
const START_FUEL: u64 = 1_000_000_000;

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
        module
            .start("validation")
            .map(|started| module.check_export(started))??;
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
    fn start(&self, label: &str) -> Result<(Store<Host>, Instance), ValidationError> {
        let failed = |error: wasmtime::Error| ValidationError::Instantiation {
            reason: format!("{error:#}"),
        };
        let mut store = Store::new(self.pre.engine(), Host::new(label, self.memory_bytes));
        store.limiter(|host| &mut host.memory);
        store.set_fuel(START_FUEL).map_err(failed)?;
        let instance = self.pre.instantiate(&mut store).map_err(failed)?;
        Ok((store, instance))
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
    fn instantiate(&self, label: &str) -> Result<Box<dyn HandlerInstance>, StepFailure> {
        let (mut store, instance) = self
            .start(label)
            .map_err(|error| StepFailure::Trap(error.to_string()))?;
        let function = instance
            .get_func(&mut store, self.world.export())
            .ok_or_else(|| {
                StepFailure::Trap(format!("the export `{}` is gone", self.world.export()))
            })?;
        Ok(match self.world {
            World::Typed => Box::new(typed::TypedInstance { store, function }),
            World::Packed => Box::new(packed::PackedInstance::new(store, function)),
        })
    }
}

/// Runs one call of a component with the step's state and fuel in its host, and says what went wrong in the words of
/// a step.
fn run_step<R>(
    store: &mut Store<Host>,
    state: &mut StepState,
    limits: StepLimits,
    call: impl FnOnce(&mut Store<Host>) -> wasmtime::Result<Result<R, String>>,
) -> Result<R, StepFailure> {
    store.data_mut().begin(state);
    let result = match store.set_fuel(limits.fuel) {
        Ok(()) => call(store),
        Err(error) => Err(error),
    };
    let said = store.data_mut().end(state);
    match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(message)) => Err(StepFailure::Error(message)),
        Err(error) => Err(match error.downcast_ref::<wasmtime::Trap>() {
            Some(wasmtime::Trap::OutOfFuel) => StepFailure::OutOfFuel { fuel: limits.fuel },
            Some(wasmtime::Trap::UnreachableCodeReached) if said.is_some() => {
                StepFailure::Trap(said.unwrap_or_default())
            }
            Some(trap) => StepFailure::Trap(trap.to_string()),
            None => StepFailure::Trap(error.root_cause().to_string()),
        }),
    }
}

impl HandlerInstance for typed::TypedInstance {
    fn step(
        &mut self,
        events: &[Event],
        state: &mut StepState,
        limits: StepLimits,
    ) -> Result<StepOutput, StepFailure> {
        let function = self.function;
        run_step(&mut self.store, state, limits, |store| {
            typed::call(store, &function, events)
        })
        .and_then(|outputs| typed::outputs(outputs, limits))
    }
}

impl HandlerInstance for packed::PackedInstance {
    fn step(
        &mut self,
        events: &[Event],
        state: &mut StepState,
        limits: StepLimits,
    ) -> Result<StepOutput, StepFailure> {
        self.pack(events);
        let (buffer, function) = (&self.buffer, self.function);
        run_step(&mut self.store, state, limits, |store| {
            packed::call(store, &function, buffer)
        })
        .and_then(|outputs| packed::unpack(outputs.into(), limits))
    }
}
