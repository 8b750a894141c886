//! A handler that does what the event's value says; and, by topic, the two of the benchmark.

use mainstem_sdk::Level;
use mainstem_sdk::bindings::mainstem::handler::{log, state};
use mainstem_sdk::prelude::*;

const COUNTS: Table<str, u64> = Table::new("counts");
const CELLS: BytesTable = BytesTable::new("cells");

struct Kitchen;

impl Handler for Kitchen {
    fn handle(event: &Event, ctx: &mut Context) -> Result<()> {
        match event.topic {
            "echo" => {
                ctx.emit_bytes("out", event.key, event.value);
                Ok(())
            }
            "cells" | "cells-prefetched" => add(event, ctx),
            _ => obey(event, ctx),
        }
    }

    fn prefetch(event: &Event, keys: &mut mainstem_sdk::Prefetch) {
        if event.topic == "cells-prefetched" {
            keys.add_bytes(&CELLS, event.key.unwrap_or_default());
        }
    }
}

mainstem_sdk::export!(Kitchen);

fn add(event: &Event, ctx: &mut Context) -> Result<()> {
    let key = event.key.unwrap_or_default();
    let count = CELLS
        .get(ctx, key)
        .and_then(|cell| cell.try_into().ok())
        .map_or(0, u64::from_le_bytes);
    CELLS.put(ctx, key, (count + 1).to_le_bytes());
    Ok(())
}

fn obey(event: &Event, ctx: &mut Context) -> Result<()> {
    let key = event.key_str().unwrap_or("none");
    match event.value_str()? {
        "count" => {
            let count = COUNTS.get(ctx, key)?.unwrap_or(0) + 1;
            COUNTS.put(ctx, key, &count)?;
            ctx.emit("out", key, &count)
        }
        "forget" => {
            COUNTS.delete(ctx, key);
            Ok(())
        }
        "list" => {
            let found = COUNTS.scan(ctx, "", None, 100)?;
            let found: Vec<String> = found
                .iter()
                .map(|(key, count)| format!("{}={count}", String::from_utf8_lossy(key)))
                .collect();
            ctx.emit("out", "list", &found)
        }
        "copy" => {
            let headers: Vec<_> = event.headers().collect();
            let output = Output {
                key: event.key,
                value: Some(b"copied"),
                headers: &headers,
                ..Output::default()
            };
            ctx.send("out", output);
            Ok(())
        }
        "error" => bail!("no such thing"),
        "panic" => panic!("the milk is sour"),
        "loop" => loop {
            std::hint::black_box(());
        },
        "scan for ever" => loop {
            std::hint::black_box(COUNTS.scan(ctx, "", None, 100)?);
        },
        "log a lot" => {
            let line = "x".repeat(1 << 20);
            (0..100).for_each(|_| log::write(Level::Info, &line));
            Ok(())
        }
        what if what.starts_with("ask for ") => {
            let count = what.trim_start_matches("ask for ").parse::<usize>()?;
            std::hint::black_box(state::get_many("counts", &vec![Vec::new(); count]));
            Ok(())
        }
        "grow" => {
            let mut all = Vec::new();
            loop {
                all.push(std::hint::black_box(vec![1u8; 1 << 20]));
            }
        }
        "undeclared" => ctx.emit("nowhere", key, &1),
        "nowhere" => {
            ctx.send(
                "out",
                Output {
                    partition: Some(99),
                    ..Output::default()
                },
            );
            Ok(())
        }
        "flood" => {
            let value = vec![b'x'; 64 << 10];
            for _ in 0..32 {
                ctx.emit_bytes("out", None, Some(&value));
            }
            Ok(())
        }
        other => bail!("unknown order {other}"),
    }
}
