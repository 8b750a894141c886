//! Building a component: cargo makes a core module for wasm32-unknown-unknown, and what the SDK left in it about its
//! world makes it a component. No WASI, no other tools.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const TARGET: &str = "wasm32-unknown-unknown";

/// Debian's own compiler, where its packages are installed.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// Why there is no component.
#[derive(Debug)]
pub enum GuestError {
    /// The folder or file cannot be used.
    Folder { path: PathBuf, why: String },
    /// The name cannot be a handler's and a crate's.
    Name { name: String },
    /// No compiler for WebAssembly.
    NoToolchain { tried: String },
    /// A program could not be run at all.
    Program {
        program: String,
        error: std::io::Error,
    },
    /// The compiler refused; what it said has been shown as it came.
    Compile { dir: PathBuf },
    /// It compiled, but not to a handler.
    NotAHandler { why: String },
}

impl GuestError {
    /// A stable name, for scripts.
    pub fn code(&self) -> &'static str {
        match self {
            GuestError::Folder { .. } => "folder",
            GuestError::Name { .. } => "invalid_name",
            GuestError::NoToolchain { .. } => "no_toolchain",
            GuestError::Program { .. } => "program",
            GuestError::Compile { .. } => "compile",
            GuestError::NotAHandler { .. } => "not_a_handler",
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            GuestError::Folder { .. } => "name another folder",
            GuestError::Name { .. } => "begin with a letter, then small letters, digits, '-' or '_', at most 64",
            GuestError::NoToolchain { .. } => {
                "either: rustup target add wasm32-unknown-unknown; \
                 or, on Debian and Ubuntu: apt-get install rustc-web rust-web-src lld; \
                 or install Rust with rustup from https://rustup.rs, then try again"
            }
            GuestError::Program { .. } => "install Rust (https://rustup.rs), and have cargo in PATH",
            GuestError::Compile { .. } => "the compiler's messages above say what to change",
            GuestError::NotAHandler { .. } => {
                "the crate needs crate-type = [\"cdylib\"], and one function marked #[mainstem_sdk::handler]"
            }
        }
        .to_owned()
    }
}

impl fmt::Display for GuestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GuestError::Folder { path, why } => write!(f, "{}: {why}", path.display()),
            GuestError::Name { name } => {
                write!(f, "`{name}` cannot be the name of a handler's project")
            }
            GuestError::NoToolchain { tried } => {
                write!(f, "no Rust compiler for {TARGET} was found ({tried})")
            }
            GuestError::Program { program, error } => {
                write!(f, "`{program}` could not be run: {error}")
            }
            GuestError::Compile { dir } => {
                write!(f, "the handler in {} does not compile", dir.display())
            }
            GuestError::NotAHandler { why } => write!(f, "the crate is no handler: {why}"),
        }
    }
}

impl std::error::Error for GuestError {}

/// Builds the component of a handler's folder, and answers where it is. What the compiler says goes to `progress`, line
/// by line. `CARGO_TARGET_DIR` is respected.
pub fn build(dir: &Path, progress: &mut dyn FnMut(&str)) -> Result<PathBuf, GuestError> {
    build_in(dir, None, progress)
}

/// The same, with cargo's files in a folder that several projects share.
pub fn build_in(
    dir: &Path,
    target: Option<&Path>,
    progress: &mut dyn FnMut(&str),
) -> Result<PathBuf, GuestError> {
    if !dir.join("Cargo.toml").is_file() {
        let why = "there is no Cargo.toml; `mainstem handler new NAME` makes a project".to_owned();
        return Err(GuestError::Folder {
            path: dir.to_owned(),
            why,
        });
    }
    let toolchain = Toolchain::find(dir, progress)?;
    let module = compile(dir, target, &toolchain, progress)?;
    let bytes = read(&module)?;
    let component = componentize(&bytes).map_err(|why| GuestError::NotAHandler { why })?;
    let path = module.with_extension("component.wasm");
    std::fs::write(&path, component).map_err(|error| folder(&path, &error))?;
    Ok(path)
}

/// Wraps a core module that carries its world as a component.
fn componentize(module: &[u8]) -> Result<Vec<u8>, String> {
    let encoder = wit_component::ComponentEncoder::default().validate(true);
    let encoder = encoder
        .module(module)
        .map_err(|error| format!("{error:#}"))?;
    let component = { encoder }.encode().map_err(|error| format!("{error:#}"))?;
    Ok(component)
}

#[derive(Debug, PartialEq, Eq)]
enum Toolchain {
    /// The usual one has the target.
    Usual,
    /// Debian's compiler with its sources, from which the standard library is built along.
    Debian,
    /// Debian's compiler with the target's library.
    DebianWithTarget,
}

impl Toolchain {
    fn find(dir: &Path, progress: &mut dyn FnMut(&str)) -> Result<Toolchain, GuestError> {
        let mut tried = Vec::new();
        match sysroot(dir, "rustc") {
            Some(sysroot) if has_target(&sysroot) => return Ok(Toolchain::Usual),
            Some(_) => tried.push("the usual rustc lacks the target"),
            None => tried.push("there is no rustc in PATH"),
        }
        let debian = debian(dir);
        progress(&format!("adding the target {TARGET} with rustup"));
        match clean(Command::new("rustup"), dir)
            .args(["target", "add", TARGET])
            .output()
        {
            Ok(output)
                if output.status.success()
                    && sysroot(dir, "rustc").is_some_and(|root| has_target(&root)) =>
            {
                return Ok(Toolchain::Usual);
            }
            Ok(output) => {
                if let Some(line) = String::from_utf8_lossy(&output.stderr)
                    .lines()
                    .find(|line| line.contains("error"))
                {
                    progress(&format!("rustup: {line}"));
                }
                tried.push("rustup could not add it");
            }
            Err(_) => tried.push("there is no rustup"),
        }
        debian.ok_or_else(|| {
            tried.push("Debian's rustc-web, rust-web-src and lld are not all installed");
            GuestError::NoToolchain {
                tried: tried.join("; "),
            }
        })
    }
}

fn debian(dir: &Path) -> Option<Toolchain> {
    let sysroot = sysroot(dir, DEBIAN_RUSTC)?;
    if has_target(&sysroot) {
        return Some(Toolchain::DebianWithTarget);
    }
    let sources = sysroot.join("lib/rustlib/src/rust/library/std/Cargo.toml");
    (sources.is_file() && in_path("wasm-ld")).then_some(Toolchain::Debian)
}

fn sysroot(dir: &Path, rustc: &str) -> Option<PathBuf> {
    let output = clean(Command::new(rustc), dir)
        .args(["--print", "sysroot"])
        .output()
        .ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(path.trim()))
}

fn has_target(sysroot: &Path) -> bool {
    let library = sysroot.join("lib/rustlib").join(TARGET).join("lib");
    std::fs::read_dir(library).is_ok_and(|mut files| files.next().is_some())
}

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// A command that sees nothing of what a surrounding cargo, or the host's own build, has set.
fn clean(mut command: Command, dir: &Path) -> Command {
    command.current_dir(dir);
    for name in [
        "RUSTC",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "CARGO_RESOLVER_FEATURE_UNIFICATION",
        "LD_PRELOAD",
    ] {
        command.env_remove(name);
    }
    if std::env::var_os("CARGO").is_some() {
        command.env_remove("RUSTUP_TOOLCHAIN");
        command.env_remove("CARGO");
    }
    command
}

fn compile(
    dir: &Path,
    target: Option<&Path>,
    toolchain: &Toolchain,
    progress: &mut dyn FnMut(&str),
) -> Result<PathBuf, GuestError> {
    let mut command = clean(Command::new("cargo"), dir);
    command.args([
        "build",
        "--release",
        "--target",
        TARGET,
        "--message-format=json-render-diagnostics",
    ]);
    if let Some(target) = target {
        command.arg("--target-dir").arg(target);
    }
    match toolchain {
        Toolchain::Usual => {}
        Toolchain::DebianWithTarget => {
            command.env("RUSTC", DEBIAN_RUSTC);
        }
        Toolchain::Debian => {
            progress(
                "the standard library is built along, with Debian's compiler: the first time takes a minute",
            );
            command
                .env("RUSTC", DEBIAN_RUSTC)
                // Building the standard library along is not stable, but Debian's sources are those of its compiler.
                .env("RUSTC_BOOTSTRAP", "1")
                .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", "wasm-ld")
                .arg("-Zbuild-std=std,panic_abort");
        }
    }
    let program = |error| GuestError::Program {
        program: "cargo".to_owned(),
        error,
    };
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(program)?;
    let stdout = child.stdout.take();
    // Both pipes are read at once: a full one would stop the compiler.
    let messages = std::thread::spawn(move || {
        let mut messages = String::new();
        stdout
            .map(|mut stdout| stdout.read_to_string(&mut messages))
            .transpose()
            .map(|_| messages)
    });
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            progress(&line);
        }
    }
    let status = child.wait().map_err(program)?;
    let messages = messages
        .join()
        .unwrap_or_else(|_| Ok(String::new()))
        .map_err(program)?;
    if !status.success() {
        return Err(GuestError::Compile {
            dir: dir.to_owned(),
        });
    }
    last_module(&messages).ok_or_else(|| GuestError::NotAHandler {
        why: "its library is not of crate-type cdylib, so cargo made no .wasm file".to_owned(),
    })
}

/// The file that cargo made last of those that are WebAssembly: the crate itself comes after all it depends on.
fn last_module(messages: &str) -> Option<PathBuf> {
    let artifact = |line: &str| -> Option<PathBuf> {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let files = message.get("filenames")?.as_array()?;
        files
            .iter()
            .filter_map(|file| file.as_str())
            .find(|file| file.ends_with(".wasm"))
            .map(PathBuf::from)
    };
    messages.lines().filter_map(artifact).next_back()
}

fn read(path: &Path) -> Result<Vec<u8>, GuestError> {
    std::fs::read(path).map_err(|error| folder(path, &error))
}

pub(super) fn folder(path: &Path, error: &dyn fmt::Display) -> GuestError {
    GuestError::Folder {
        path: path.to_owned(),
        why: error.to_string(),
    }
}
