//! What can go wrong between a caller and the runtime.

use mainstem_broker::BrokerError;
use mainstem_engine::EngineError;
use mainstem_store::StoreError;

/// Why a call was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// No handler of this name.
    #[error("there is no handler `{name}`; `mainstem handler status` lists what is deployed")]
    UnknownHandler {
        /// The name asked for.
        name: String,
    },
    /// The deployment itself does not make sense.
    #[error("the deployment of `{name}` is refused: {reason}")]
    InvalidDeployment {
        /// The handler's name.
        name: String,
        /// What to change.
        reason: String,
    },
    /// A topic that the deployment names is not there.
    #[error("handler `{handler}`: {role} topic `{topic}` does not exist; {hint}")]
    UnknownTopic {
        /// The handler's name.
        handler: String,
        /// `input` or `output`.
        role: &'static str,
        /// The topic.
        topic: String,
        /// What to do.
        hint: &'static str,
    },
    /// The bytes are no component that can be run.
    #[error("the component is refused: {0}")]
    Component(#[from] ValidationError),
    /// A handler that is being removed cannot be changed.
    #[error("handler `{name}` is being removed; wait until it is gone, then deploy it anew")]
    Removing {
        /// The handler's name.
        name: String,
    },
    /// A file under `modules/`.
    #[error("module file {path}: {source}")]
    ModuleFile {
        /// Which file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A module file whose content is not what its name says.
    #[error(
        "module file {path} is damaged: its SHA-256 is {found}; deploy the component again, or restore the file from a backup"
    )]
    DamagedModule {
        /// Which file.
        path: String,
        /// The hash of what it holds.
        found: String,
    },
    /// A catalogue entry that this version does not understand.
    #[error("the catalogue's entry for handler `{name}` cannot be read: {reason}")]
    Catalog {
        /// The handler's name.
        name: String,
        /// Why not.
        reason: String,
    },
    /// Other deployments kept changing the catalogue.
    #[error("handler `{name}` was changed by someone else at the same time; try again")]
    Contended {
        /// The handler's name.
        name: String,
    },
    /// From the broker.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// From the engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// From the store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a component is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValidationError {
    /// Not WebAssembly at all.
    #[error(
        "it is not WebAssembly ({what}); deploy the .wasm file that `mainstem handler build` names"
    )]
    NotWasm {
        /// What it looks like.
        what: String,
    },
    /// A core module.
    #[error(
        "it is a core WebAssembly module, not a component; build it with `mainstem handler build`, or wrap it with `wasm-tools component new`"
    )]
    CoreModule,
    /// It cannot be compiled.
    #[error("it cannot be compiled: {reason}")]
    Invalid {
        /// What the compiler said.
        reason: String,
    },
    /// It asks for something that handlers do not get.
    #[error("it imports `{import}`, which no handler gets: there is only {offered}; {hint}")]
    UnknownImport {
        /// What it asks for.
        import: String,
        /// What there is.
        offered: String,
        /// What to do.
        hint: &'static str,
    },
    /// It is of another world.
    #[error(
        "it is of the wrong world: {missing}; build it against package mainstem:handler@0.1.0, for example with the SDK"
    )]
    WrongWorld {
        /// What it lacks.
        missing: String,
    },
    /// It does not start.
    #[error("it cannot be instantiated: {reason}")]
    Instantiation {
        /// What went wrong.
        reason: String,
    },
}
