//! A handler as it is shown: for people and for machines.

use crate::cli::Output;
use crate::cli::output::{Out, document, fields, table, time};
use crate::failure::Failure;
use mainstem_client::proto::Handler;
use serde_json::{Value, json};

/// A state's name without the prefix that the protocol gives it.
fn state_name(name: &str) -> String {
    let name = name
        .strip_prefix("HANDLER_STATE_")
        .or(name.strip_prefix("TASK_STATE_"))
        .unwrap_or(name);
    name.to_ascii_lowercase()
}

pub fn to_json(handler: &Handler) -> Value {
    let some = |text: &str| Some(text.to_string()).filter(|text| !text.is_empty());
    let tasks: Vec<Value> = handler
        .tasks
        .iter()
        .map(|task| {
            let inputs: Vec<Value> = task
                .inputs
                .iter()
                .map(|one| json!({ "topic": one.topic, "next_offset": one.next_offset, "high_watermark": one.high_watermark }))
                .collect();
            json!({
                "partition": task.partition,
                "state": state_name(task.state().as_str_name()),
                "inputs": inputs,
                "lag_events": task.lag_events,
                "events_per_second": task.events_per_second,
                "events": task.events,
                "outputs": task.outputs,
                "steps": task.steps,
                "failures": task.failures,
                "dead_letters": task.dead_letters,
                "last_error": some(&task.last_error),
                "last_error_ms": Some(task.last_error_ms).filter(|ms| *ms > 0),
            })
        })
        .collect();
    json!({
        "name": handler.name,
        "version": handler.version,
        "generation": handler.generation,
        "state": state_name(handler.state().as_str_name()),
        "inputs": handler.inputs,
        "outputs": handler.outputs,
        "dead_letter_topic": some(&handler.dead_letter_topic),
        "created_ms": handler.created_ms,
        "updated_ms": handler.updated_ms,
        "lag_events": handler.lag_events,
        "events_per_second": handler.events_per_second,
        "events": handler.events,
        "dead_letters": handler.dead_letters,
        "last_error": some(&handler.last_error),
        "tasks": tasks,
    })
}

pub fn show(output: Output, handler: &Handler) -> Result<(), Failure> {
    document(output, &to_json(handler), || {
        let mut rows = vec![
            ("handler", handler.name.clone()),
            ("state", state_name(handler.state().as_str_name())),
            (
                "version",
                format!(
                    "{}, generation {}, changed {}",
                    short(&handler.version),
                    handler.generation,
                    time(handler.updated_ms)
                ),
            ),
            ("reads", handler.inputs.join(", ")),
            (
                "writes",
                match handler.outputs.as_slice() {
                    [] => "nothing: it was deployed without --to".to_string(),
                    topics => topics.join(", "),
                },
            ),
            ("lag", format!("{} events", handler.lag_events)),
            ("rate", format!("{:.0} events/s", handler.events_per_second)),
        ];
        if handler.dead_letters > 0 {
            let letters = format!("{} in {}", handler.dead_letters, handler.dead_letter_topic);
            rows.push(("dead letters", letters));
        }
        if !handler.last_error.is_empty() {
            rows.push(("last error", handler.last_error.clone()));
        }
        let mut text = fields(rows);
        // State and offsets are kept, these are not.
        text += "\ncounts since the server's start:\n";
        text += &table(
            &[
                "task",
                "state",
                "lag",
                "events",
                "outputs",
                "failures",
                "dead letters",
            ],
            handler.tasks.iter().map(|task| {
                vec![
                    task.partition.to_string(),
                    state_name(task.state().as_str_name()),
                    task.lag_events.to_string(),
                    task.events.to_string(),
                    task.outputs.to_string(),
                    task.failures.to_string(),
                    task.dead_letters.to_string(),
                ]
            }),
        );
        text
    })
}

pub fn list(output: Output, handlers: &[Handler]) -> Result<(), Failure> {
    if handlers.is_empty() && output == Output::Table {
        let mut out = Out::new();
        out.line("no handler is deployed; `mainstem handler new NAME` makes one to start from")?;
        return out.flush();
    }
    let all: Vec<Value> = handlers.iter().map(to_json).collect();
    document(output, &json!({ "handlers": all }), || {
        table(
            &[
                "name",
                "state",
                "version",
                "reads",
                "writes",
                "lag",
                "last error",
            ],
            handlers.iter().map(|one| {
                vec![
                    one.name.clone(),
                    state_name(one.state().as_str_name()),
                    short(&one.version).to_string(),
                    one.inputs.join(","),
                    one.outputs.join(","),
                    one.lag_events.to_string(),
                    start_of(&one.last_error),
                ]
            }),
        )
    })
}

/// As much of an error as a row of a list has room for; the handler's own page has all of it.
fn start_of(error: &str) -> String {
    const ROOM: usize = 60;
    match error.char_indices().nth(ROOM) {
        Some((at, _)) => format!("{}…", error.get(..at).unwrap_or(error)),
        None => error.to_string(),
    }
}

fn short(version: &str) -> &str {
    version.get(..12).unwrap_or(version)
}

#[cfg(test)]
mod tests {
    use super::state_name;
    use mainstem_client::proto::{HandlerState, TaskState};

    #[test]
    fn states_have_short_names() {
        assert_eq!(state_name(HandlerState::Running.as_str_name()), "running");
        assert_eq!(state_name(TaskState::Retrying.as_str_name()), "retrying");
    }
}
