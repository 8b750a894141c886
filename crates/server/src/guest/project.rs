//! A project to start from. The template, the SDK and the contract are part of the program, file by file, so that a
//! project builds in any folder and with the SDK of its server.

use std::path::Path;

use super::toolchain::{GuestError, folder};

macro_rules! carried {
    ($($from:literal => $to:literal),* $(,)?) => {
        &[$(($to, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../sdk/", $from)))),*]
    };
}

/// Files of a project: where, and what is in it. `{{name}}` stands for the handler's name.
const FILES: &[(&str, &str)] = carried! {
    "rust/template/Cargo.toml.in" => "Cargo.toml",
    "rust/template/src/lib.rs" => "src/lib.rs",
    "rust/template/README.md" => "README.md",
    "rust/template/gitignore" => ".gitignore",
    "wit/handler.wit" => ".mainstem/sdk/wit/handler.wit",
    "rust/Cargo.toml" => ".mainstem/sdk/rust/Cargo.toml",
    "rust/src/lib.rs" => ".mainstem/sdk/rust/src/lib.rs",
    "rust/src/context.rs" => ".mainstem/sdk/rust/src/context.rs",
    "rust/src/error.rs" => ".mainstem/sdk/rust/src/error.rs",
    "rust/src/event.rs" => ".mainstem/sdk/rust/src/event.rs",
    "rust/src/packed.rs" => ".mainstem/sdk/rust/src/packed.rs",
    "rust/src/table.rs" => ".mainstem/sdk/rust/src/table.rs",
    "rust/macros/Cargo.toml" => ".mainstem/sdk/rust/macros/Cargo.toml",
    "rust/macros/src/lib.rs" => ".mainstem/sdk/rust/macros/src/lib.rs",
};

const MAX_NAME_BYTES: usize = 64;

/// Makes a folder with a handler to start from.
pub fn new(dir: &Path, name: &str) -> Result<(), GuestError> {
    let begins = name.starts_with(|first: char| first.is_ascii_lowercase());
    let allowed = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_'
    };
    if !begins || name.len() > MAX_NAME_BYTES || !name.bytes().all(allowed) {
        return Err(GuestError::Name {
            name: name.to_owned(),
        });
    }
    if std::fs::read_dir(dir).is_ok_and(|mut files| files.next().is_some()) {
        return Err(GuestError::Folder {
            path: dir.to_owned(),
            why: "it is not empty; nothing was changed".to_owned(),
        });
    }
    for (file, content) in FILES {
        let path = dir.join(file);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|error| folder(parent, &error))?;
        }
        // The SDK's own files are carried as they are.
        let content = match file.starts_with(".mainstem") {
            true => (*content).to_owned(),
            false => content.replace("{{name}}", name),
        };
        std::fs::write(&path, content).map_err(|error| folder(&path, &error))?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_file_of_the_sdk_is_carried() {
        let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk");
        let carried: BTreeSet<_> = FILES.iter().map(|(file, _)| file.to_string()).collect();
        for folder in ["rust/src", "rust/macros/src", "wit"] {
            for file in std::fs::read_dir(sdk.join(folder)).unwrap() {
                let name = file.unwrap().file_name().into_string().unwrap();
                let path = format!(".mainstem/sdk/{folder}/{name}");
                assert!(carried.contains(&path), "{path} is missing from FILES");
            }
        }
    }

    #[test]
    fn a_project_is_made_once_and_under_a_good_name() {
        let dir = tempfile::tempdir().unwrap();
        let project = dir.path().join("totals");
        new(&project, "totals").unwrap();
        let manifest = std::fs::read_to_string(project.join("Cargo.toml")).unwrap();
        assert!(
            manifest.contains("name = \"totals\"") && !manifest.contains("{{"),
            "{manifest}"
        );
        assert_eq!(new(&project, "totals").unwrap_err().code(), "folder");
        for bad in ["", "1st", "Über", "a/b", "-x"] {
            assert_eq!(
                new(&dir.path().join("other"), bad).unwrap_err().code(),
                "invalid_name",
                "{bad}"
            );
        }
    }
}
