//! The files in `modules/`: components under the SHA-256 of their bytes, and beside them what was compiled from them.
//!
//! ```text
//! modules/<sha256>.wasm                  the component; durable before a frame names it, removed with the last handler that
//!                                        has it, or at a start once none does
//! modules/<sha256>-<environment>.cwasm   compiled; the environment is a hash over wasmtime's version, its settings and
//!                                        the CPU's features; may be missing or removed at any time
//! ```
//!
//! Compiled code is trusted as the program itself is, so it begins with a SHA-256 over the rest: damage is found and the
//! component compiled again.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mainstem_journal::{Disk, OpenMode, write_file_durably};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use super::{WasmEngine, WasmModule};
use crate::RuntimeError;

pub(crate) const DIGEST_BYTES: usize = 32;

/// What a file in `modules/` is, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ModuleFile {
    /// The component of a version.
    Component(String),
    /// What was compiled from a version, for an environment.
    Compiled {
        /// The version.
        version: String,
        /// The environment.
        environment: String,
    },
    /// On its way to one of the two.
    Unfinished,
    /// None that this crate writes.
    Strange,
}

impl ModuleFile {
    pub(crate) fn of(name: &str) -> ModuleFile {
        let hexadecimal = |text: &str, digits: usize| {
            text.len() == digits && text.chars().all(|c| c.is_ascii_hexdigit())
        };
        if name.ends_with(".tmp") {
            return ModuleFile::Unfinished;
        }
        if let Some(version) = name.strip_suffix(".wasm")
            && hexadecimal(version, 2 * DIGEST_BYTES)
        {
            return ModuleFile::Component(version.to_owned());
        }
        let compiled = name.strip_suffix(".cwasm");
        match compiled.and_then(|name| name.split_once('-')) {
            Some((version, environment))
                if hexadecimal(version, 2 * DIGEST_BYTES) && hexadecimal(environment, 16) =>
            {
                ModuleFile::Compiled {
                    version: version.to_owned(),
                    environment: environment.to_owned(),
                }
            }
            _ => ModuleFile::Strange,
        }
    }

    /// The file's name of a component.
    pub(crate) fn component(version: &str) -> String {
        format!("{version}.wasm")
    }
}

/// A component that is being deployed.
pub(crate) struct Installed {
    store: Arc<ModuleStore>,
    pub(crate) version: String,
}

impl Drop for Installed {
    fn drop(&mut self) {
        let mut deploying = self.store.deploying.lock();
        if let Some(count) = deploying.get_mut(&self.version) {
            *count -= 1;
            if *count == 0 {
                deploying.remove(&self.version);
            }
        }
    }
}

pub(crate) struct ModuleStore {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    engine: WasmEngine,
    environment: String,
    /// By version and limit of memory.
    loaded: Mutex<BTreeMap<(String, u64), Arc<WasmModule>>>,
    /// Versions that this process has made durable.
    durable: Mutex<BTreeSet<String>>,
    /// Versions that are being deployed, and by how many.
    deploying: Mutex<BTreeMap<String, usize>>,
    /// Held by whoever compiles: nothing is compiled twice at once.
    compiling: Mutex<()>,
}

impl ModuleStore {
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: PathBuf) -> Result<ModuleStore, RuntimeError> {
        disk.create_dir_all(&dir)
            .map_err(|source| failed(&dir, source))?;
        let engine = WasmEngine::new()?;
        let mut environment = Digester(Sha256::new());
        engine
            .engine
            .precompile_compatibility_hash()
            .hash(&mut environment);
        let environment = hex(&environment.0.finalize()).chars().take(16).collect();
        Ok(ModuleStore {
            disk,
            dir,
            engine,
            environment,
            loaded: Mutex::default(),
            durable: Mutex::default(),
            deploying: Mutex::default(),
            compiling: Mutex::default(),
        })
    }

    /// Checks a component, and puts it durably where [`ModuleStore::load`] finds it. It stays there as long as what is
    /// answered, or an entry of the catalogue.
    pub(crate) fn install(
        self: &Arc<Self>,
        bytes: &[u8],
        memory_bytes: u64,
    ) -> Result<Installed, RuntimeError> {
        super::validate::check_form(bytes)?;
        let version = hex(&Sha256::digest(bytes));
        // Before the compiling, which waits for a removal under way.
        let installed = self.keep(&version);
        self.compiled(&version, || Ok(bytes.to_vec()), memory_bytes)?;
        let path = self.component_path(&version);
        // That the bytes can be read does not say that they are synced: an earlier deployment may have failed there.
        if !self.durable.lock().contains(&version) {
            write_file_durably(&*self.disk, &path, bytes)
                .map_err(|error| failed(&path, io::Error::other(error)))?;
            self.durable.lock().insert(version);
        }
        Ok(installed)
    }

    fn keep(self: &Arc<Self>, version: &str) -> Installed {
        let mut deploying = self.deploying.lock();
        *deploying.entry(version.to_owned()).or_default() += 1;
        Installed {
            store: self.clone(),
            version: version.to_owned(),
        }
    }

    /// Removes the files of a version, unless it is being deployed or `is_needed`, which looks into the catalogue. Waits for
    /// whoever compiles.
    pub(crate) fn remove(
        &self,
        version: &str,
        is_needed: impl FnOnce() -> Result<bool, RuntimeError>,
    ) -> Result<(), RuntimeError> {
        let _alone = self.compiling.lock();
        // In this order: a deployment that is over stands in the catalogue.
        if self.deploying.lock().contains_key(version) || is_needed()? {
            return Ok(());
        }
        self.loaded.lock().retain(|(known, _), _| known != version);
        self.durable.lock().remove(version);
        for path in [self.component_path(version), self.compiled_path(version)] {
            match self.disk.remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(failed(&path, source));
                }
                _ => {}
            }
        }
        tracing::debug!(case = "module removed", version);
        Ok(())
    }

    /// The component of a version, if it has been compiled and is in memory. Waits for nobody.
    pub(crate) fn loaded(&self, version: &str, memory_bytes: u64) -> Option<Arc<WasmModule>> {
        let key = (version.to_owned(), memory_bytes);
        self.loaded.lock().get(&key).cloned()
    }

    /// The component of a version, compiled. Takes up to seconds.
    pub(crate) fn load(
        &self,
        version: &str,
        memory_bytes: u64,
    ) -> Result<Arc<WasmModule>, RuntimeError> {
        let path = self.component_path(version);
        let component = || {
            let bytes = self.read(&path).map_err(|source| failed(&path, source))?;
            match hex(&Sha256::digest(&bytes)) {
                found if found == version => Ok(bytes),
                found => Err(RuntimeError::DamagedModule {
                    path: path.display().to_string(),
                    found,
                }),
            }
        };
        self.compiled(version, component, memory_bytes)
    }

    /// Forgets the modules that nobody uses any more.
    pub(crate) fn trim(&self) {
        self.loaded
            .lock()
            .retain(|_, module| Arc::strong_count(module) > 1);
    }

    /// Removes the files that nobody will read: components that are not among the needed ones, as earlier versions and
    /// refused deployments leave them, what was compiled from those or for another environment, and what was never
    /// finished. For a start: a deployment under way has its component here before the catalogue names it.
    pub(crate) fn remove_unneeded(&self, needed: &BTreeSet<&str>) -> io::Result<()> {
        for name in self.disk.list(&self.dir)? {
            let is_needed = match ModuleFile::of(&name) {
                ModuleFile::Component(version) => needed.contains(&*version),
                ModuleFile::Compiled {
                    version,
                    environment,
                } => needed.contains(&*version) && environment == self.environment,
                ModuleFile::Unfinished => false,
                ModuleFile::Strange => true,
            };
            if !is_needed {
                tracing::debug!(case = "module removed", name);
                self.disk.remove_file(&self.dir.join(name))?;
            }
        }
        Ok(())
    }

    fn compiled(
        &self,
        version: &str,
        component: impl FnOnce() -> Result<Vec<u8>, RuntimeError>,
        memory_bytes: u64,
    ) -> Result<Arc<WasmModule>, RuntimeError> {
        let _alone = self.compiling.lock();
        if let Some(known) = self.loaded(version, memory_bytes) {
            return Ok(known);
        }
        let module = match self.read_compiled(version) {
            Some(component) => self.engine.link(component, memory_bytes)?,
            None => {
                let module = self.engine.compile(&component()?, memory_bytes)?;
                self.write_compiled(version, &module.component);
                module
            }
        };
        let module = Arc::new(module);
        let key = (version.to_owned(), memory_bytes);
        self.loaded.lock().insert(key, module.clone());
        Ok(module)
    }

    fn read_compiled(&self, version: &str) -> Option<Component> {
        let path = self.compiled_path(version);
        let bytes = self.read(&path).ok()?;
        let (digest, code) = bytes.split_at_checked(DIGEST_BYTES)?;
        if digest != Sha256::digest(code).as_slice() {
            tracing::warn!(path = %path.display(), "compiled code is damaged; the component is compiled again");
            return None;
        }
        // SAFETY: the bytes are what `Component::serialize` made: the digest says that they are unchanged, and the name
        // that it was for this environment. Nobody but this program writes into the data directory.
        #[allow(unsafe_code)]
        let component = unsafe { Component::deserialize(&self.engine.engine, code) };
        component.inspect_err(|error| tracing::warn!(path = %path.display(), %error, "compiled code is not usable")).ok()
    }

    /// Best effort: without the file, the next start compiles again.
    fn write_compiled(&self, version: &str, component: &Component) {
        let path = self.compiled_path(version);
        let Ok(code) = component.serialize() else {
            return;
        };
        let mut bytes = Sha256::digest(&code).to_vec();
        bytes.extend_from_slice(&code);
        if let Err(error) = write_file_durably(&*self.disk, &path, &bytes) {
            tracing::warn!(path = %path.display(), %error, "compiled code could not be kept");
        }
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.disk.open(path, OpenMode::Read)?;
        let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(0)];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, filled as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => filled += read,
            }
        }
        Ok(bytes)
    }

    fn component_path(&self, version: &str) -> PathBuf {
        self.dir.join(ModuleFile::component(version))
    }

    fn compiled_path(&self, version: &str) -> PathBuf {
        self.dir
            .join(format!("{version}-{}.cwasm", self.environment))
    }
}

fn failed(path: &Path, source: io::Error) -> RuntimeError {
    RuntimeError::ModuleFile {
        path: path.display().to_string(),
        source,
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 as a `Hasher`, because a name that outlives the process needs a hash that does, too.
struct Digester(Sha256);

impl Hasher for Digester {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        digest
            .iter()
            .take(8)
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}
