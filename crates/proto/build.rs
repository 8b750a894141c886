//! Compiles `proto/mainstem/v1` without a system `protoc`.

use std::path::PathBuf;

use prost::Message;

const FILES: [&str; 6] = ["topics", "produce", "fetch", "handlers", "sql", "server"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    println!("cargo:rerun-if-changed={}", root.display());

    let files = FILES.map(|file| root.join(format!("mainstem/v1/{file}.proto")));
    let descriptors = protox::compile(files, [&root])?;
    std::fs::write(out.join("mainstem.v1.bin"), descriptors.encode_to_vec())?;

    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        // Record batches and components are slices of the received buffer, never copies.
        .bytes(".")
        .codec_path("crate::Codec")
        .compile_fds(descriptors)?;
    Ok(())
}
