//! Near names, for hints.

use datafusion::common::utils::datafusion_strsim::levenshtein;

/// At most this many names stand in a hint.
const SHOWN: usize = 3;

/// The names near to the one asked for, nearest first: up to a third of its letters may differ.
pub(crate) fn nearest<'a>(asked: &str, names: &[&'a str]) -> Vec<&'a str> {
    let asked = asked.to_lowercase();
    let allowed = (asked.chars().count() / 3).max(1);
    let mut near: Vec<(usize, &str)> = names
        .iter()
        .map(|name| {
            let lower = name.to_lowercase();
            let distance = levenshtein(&asked, &lower);
            // The beginning of a name is a near name, however long the rest.
            (
                if asked.len() >= 3 && lower.starts_with(&asked) {
                    distance.min(allowed)
                } else {
                    distance
                },
                *name,
            )
        })
        .filter(|(distance, _)| *distance <= allowed)
        .collect();
    near.sort_unstable();
    near.dedup();
    near.into_iter().map(|(_, name)| name).take(SHOWN).collect()
}

/// The name as SQL wants it: in double quotes unless it is plain lower case.
pub(crate) fn quoted(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

fn listed(names: &[&str]) -> String {
    names
        .iter()
        .map(|name| quoted(name))
        .collect::<Vec<_>>()
        .join(" or ")
}

/// What to do about a column that is not there.
pub(crate) fn column_hint(asked: &str, names: &[&str]) -> String {
    let near = nearest(asked, names);
    if !near.is_empty() {
        return format!("did you mean {}?", listed(&near));
    }
    let shown: Vec<String> = names.iter().take(12).map(|name| quoted(name)).collect();
    let more = if names.len() > shown.len() {
        ", …"
    } else {
        ""
    };
    format!(
        "there are {}{more}; the bytes of each value are in _value",
        shown.join(", ")
    )
}

/// What to do about a table that is not there. `names` are those of its schema, as they stand in it.
pub(crate) fn table_hint(schema: &str, asked: &str, names: &[&str]) -> String {
    let prefix = if schema == "public" {
        String::new()
    } else {
        format!("{schema}.")
    };
    let near: Vec<String> = nearest(asked, names)
        .into_iter()
        .map(|name| format!("{prefix}{}", quoted(name)))
        .collect();
    match (near.is_empty(), schema) {
        (false, _) => format!("did you mean {}?", near.join(" or ")),
        (true, "public") => "SHOW TABLES lists what there is; `mainstem topic create` makes a topic, which is a table at once".into(),
        (true, "state") => "SHOW TABLES lists what there is; a handler's state is a table from its deployment on".into(),
        _ => "SHOW TABLES lists what there is; topics are in schema public, handlers' state in state, the rest in system".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::{nearest, quoted, table_hint};

    #[test]
    fn near_names_are_few_and_nearest_first() {
        let names = ["flights", "flight", "alerts", "daily", "Flights"];
        assert_eq!(nearest("flihgts", &names), ["Flights", "flights"]);
        assert_eq!(nearest("flig", &names), ["Flights", "flight", "flights"]);
        assert!(nearest("zzz", &names).is_empty());
    }

    #[test]
    fn names_that_sql_would_change_are_quoted() {
        assert_eq!(quoted("flights"), "flights");
        assert_eq!(quoted("flights.dlq"), "\"flights.dlq\"");
        assert_eq!(
            table_hint("state", "flight", &["flights"]),
            "did you mean state.flights?"
        );
    }
}
