//! The handler under test, as native code: it counts events by key in its state and tells every count.

use mainstem_engine::EngineError;
use mainstem_runtime::{Code, Deployment, NativeHandler, OnError, OutputRecord};
use std::sync::Arc;

use crate::recount::{ALERT_EVERY, POISON};

pub(super) const NAME: &str = "counter";
pub(super) const INPUT: &str = "in";
pub(super) const OUTPUT: &str = "out";
pub(super) const ALERTS: &str = "alerts";
pub(super) const DEAD_LETTERS: &str = "counter.dlq";
pub(super) const TABLE: &str = "counts";

/// What is deployed after every start: native code is not kept.
pub(super) fn deployment() -> Deployment {
    let handle = NativeHandler::new(|event, state, out| {
        let text = |bytes: &Option<bytes::Bytes>| {
            String::from_utf8(bytes.clone().unwrap_or_default().to_vec())
        };
        let key = text(&event.key).map_err(|error| error.to_string())?;
        let value = text(&event.value).map_err(|error| error.to_string())?;
        if value.starts_with(POISON) {
            return Err("poison".to_owned());
        }
        let before = state.get(TABLE, key.as_bytes())?;
        let before =
            before.and_then(|bytes| Some(u64::from_be_bytes(bytes.as_ref().try_into().ok()?)));
        let count = before.unwrap_or(0) + 1;
        state.put(TABLE, key.as_bytes(), count.to_be_bytes().to_vec())?;
        out.push(OutputRecord {
            topic: OUTPUT.into(),
            key: Some(key.clone().into()),
            value: Some(format!("{count}|{}|{}|{value}", event.partition, event.offset).into()),
            partition: Some(event.partition),
            ..OutputRecord::default()
        });
        if count % ALERT_EVERY == 0 {
            out.push(OutputRecord {
                topic: ALERTS.into(),
                key: Some(key.into()),
                value: Some(format!("{}|{count}", event.partition).into()),
                ..OutputRecord::default()
            });
        }
        Ok(())
    });
    let code = Code::Native {
        version: "1".to_owned(),
        module: Arc::new(handle),
    };
    let mut deployment = Deployment::new(NAME, code)
        .input(INPUT)
        .output(OUTPUT)
        .output(ALERTS);
    deployment.on_error = OnError::DeadLetter { attempts: 2 };
    deployment
}

/// Whether an error says no more than that the node is going down.
pub(super) fn is_going_down(error: &EngineError) -> bool {
    matches!(error, EngineError::Poisoned { .. } | EngineError::Closed)
}
