//! The handler `{{name}}`: counts events by key, and emits the new count of a key with every event.

use mainstem_sdk::prelude::*;

/// What is kept for each key. SQL sees it as `state.{{name}}`, with a column for each field.
#[derive(Default, Serialize, Deserialize)]
struct Count {
    events: u64,
    last_seen_ms: i64,
}

const COUNTS: Table<str, Count> = Table::new("counts");

#[mainstem_sdk::handler]
fn handle(event: &Event, ctx: &mut Context) -> Result<()> {
    let key = event.key_str()?;
    let count = COUNTS.update(ctx, key, |count| {
        count.events += 1;
        count.last_seen_ms = event.timestamp_ms;
    })?;
    ctx.emit("{{name}}-out", key, &count)
}
