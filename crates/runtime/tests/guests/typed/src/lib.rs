//! A handler of the typed world, without the SDK: what any language with a component toolchain can do.

wit_bindgen::generate!({ path: "../../../../../sdk/wit", world: "handler" });

use mainstem::handler::{log, state, types::Header};

struct Typed;

impl Guest for Typed {
    fn step(events: Vec<Event>) -> Result<Vec<Output>, String> {
        let mut outputs = Vec::new();
        for event in events {
            let key = event.key.clone().unwrap_or_default();
            match event.value.as_deref().unwrap_or_default() {
                b"count" => {
                    let count = state::get("counts", &key)
                        .and_then(|value| String::from_utf8(value).ok()?.parse().ok())
                        .unwrap_or(0u64)
                        + 1;
                    let count = count.to_string().into_bytes();
                    state::put("counts", &key, &count);
                    outputs.push(output(&event, Some(count)));
                }
                b"list" => {
                    let found = state::scan("counts", &[], None, 100);
                    let found: Vec<String> = found
                        .into_iter()
                        .map(|(key, value)| {
                            format!(
                                "\"{}={}\"",
                                String::from_utf8_lossy(&key),
                                String::from_utf8_lossy(&value)
                            )
                        })
                        .collect();
                    let mut listed =
                        output(&event, Some(format!("[{}]", found.join(",")).into_bytes()));
                    listed.key = Some(b"list".to_vec());
                    outputs.push(listed);
                }
                b"copy" => {
                    let mut copy = output(&event, Some(b"copied".to_vec()));
                    copy.headers = event
                        .headers
                        .iter()
                        .map(|h| Header {
                            name: h.name.clone(),
                            value: h.value.clone(),
                        })
                        .collect();
                    outputs.push(copy);
                }
                b"forget" => state::delete("counts", &key),
                b"panic" => {
                    log::write(log::Level::Error, "the milk is sour");
                    panic!();
                }
                b"undeclared" => {
                    let mut wrong = output(&event, None);
                    wrong.topic = "nowhere".to_owned();
                    outputs.push(wrong);
                }
                b"nowhere" => {
                    let mut wrong = output(&event, None);
                    wrong.partition = Some(99);
                    outputs.push(wrong);
                }
                other => {
                    return Err(match other {
                        b"error" => "no such thing".to_owned(),
                        other => format!("unknown order {}", String::from_utf8_lossy(other)),
                    });
                }
            }
        }
        Ok(outputs)
    }
}

fn output(event: &Event, value: Option<Vec<u8>>) -> Output {
    Output {
        topic: "out".to_owned(),
        key: event.key.clone(),
        value,
        headers: Vec::new(),
        timestamp_ms: Some(event.timestamp_ms),
        partition: None,
    }
}

export!(Typed);
