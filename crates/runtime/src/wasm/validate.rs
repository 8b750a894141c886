//! Is it a handler? And where it is not, what to say.

use wasmtime::Engine;
use wasmtime::component::Component;

use super::World;
use super::host::{LOG, STATE, TYPES};
use crate::ValidationError;

const COMPONENT: [u8; 8] = [0, b'a', b's', b'm', 0x0d, 0, 1, 0];
const CORE_MODULE: [u8; 8] = [0, b'a', b's', b'm', 1, 0, 0, 0];

/// Looks at the first bytes only.
pub(super) fn check_form(bytes: &[u8]) -> Result<(), ValidationError> {
    if bytes.starts_with(&COMPONENT) {
        return Ok(());
    }
    if bytes.starts_with(&CORE_MODULE) {
        return Err(ValidationError::CoreModule);
    }
    let what = match bytes {
        [] => "the file is empty".to_owned(),
        [0, b'a', b's', b'm', ..] => {
            "it has a version of the binary format that is not known here".to_owned()
        }
        [b'(', ..] => "it looks like the text format; the binary format is needed".to_owned(),
        [0x7f, b'E', b'L', b'F', ..] => "it is a native program or library".to_owned(),
        _ => {
            let first: Vec<String> = bytes
                .iter()
                .take(4)
                .map(|byte| format!("{byte:02x}"))
                .collect();
            format!("it begins with {} instead of 00 61 73 6d", first.join(" "))
        }
    };
    Err(ValidationError::NotWasm { what })
}

/// Looks at the names of imports and exports.
pub(super) fn check_world(
    engine: &Engine,
    component: &Component,
) -> Result<World, ValidationError> {
    let kind = component.component_type();
    for (name, _) in kind.imports(engine) {
        if ![STATE, LOG, TYPES].contains(&name) {
            return Err(ValidationError::UnknownImport {
                import: name.to_owned(),
                offered: format!("`{STATE}` and `{LOG}`"),
                hint: match name {
                    _ if name.starts_with("wasi:") => {
                        "build it for wasm32-unknown-unknown, which has no WASI (`mainstem handler build` does)"
                    }
                    _ if name.starts_with("mainstem:handler/") => {
                        "it is built against another version of the contract: build it with the SDK of this server"
                    }
                    _ => "remove what needs it",
                },
            });
        }
    }
    let exports: Vec<String> = kind
        .exports(engine)
        .map(|(name, _)| name.to_owned())
        .collect();
    for world in [World::Packed, World::Typed] {
        if exports.iter().any(|name| name == world.export()) {
            return Ok(world);
        }
    }
    let found = match exports.as_slice() {
        [] => "it exports nothing".to_owned(),
        names => format!("it exports `{}`", names.join("`, `")),
    };
    Err(ValidationError::WrongWorld {
        missing: format!("{found}, but neither `step` nor `step-packed`"),
    })
}
