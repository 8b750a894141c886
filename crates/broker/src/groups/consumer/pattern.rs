//! Patterns of topic names: a regular expression that a whole name must match.
//!
//! The syntax is that of the `regex` crate, which like Kafka's RE2 has neither look-around nor back references and
//! matches in linear time. Classes such as `\w` are those of ASCII, as in RE2.

use regex::bytes::{Regex, RegexBuilder};

use crate::BrokerError;

/// The longest pattern, in bytes.
const MAX_BYTES: usize = 4_096;
/// What a compiled pattern may take, in bytes.
const MAX_COMPILED_BYTES: usize = 256 << 10;

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(super) struct Pattern(Regex);

impl Pattern {
    pub(super) fn new(text: &str) -> Result<Pattern, BrokerError> {
        let refuse = |why: String| BrokerError::InvalidPattern {
            pattern: text.chars().take(250).collect(),
            why,
        };
        if text.len() > MAX_BYTES {
            return Err(refuse(format!("it is longer than {MAX_BYTES} bytes")));
        }
        let compile = |text: &str| {
            RegexBuilder::new(text)
                .unicode(false)
                .size_limit(MAX_COMPILED_BYTES)
                .dfa_size_limit(MAX_COMPILED_BYTES)
                .build()
                .map_err(|error| refuse(why(&error)))
        };
        // By itself first: it is not to make sense of what is put around it.
        compile(text)?;
        compile(&format!(r"\A(?:{text})\z")).map(Pattern)
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        self.0.is_match(name.as_bytes())
    }
}

/// The error on one line.
fn why(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(limit) => {
            format!("it takes more than {limit} bytes when compiled")
        }
        other => other
            .to_string()
            .lines()
            .last()
            .unwrap_or_default()
            .to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(name)
    }

    #[test]
    fn a_whole_name_must_match() {
        assert!(matches("a|ab", "ab"));
        assert!(matches("orders.*", "orders-eu"));
        assert!(matches("(?i)ORDERS", "orders"));
        assert!(!matches("orders", "orders-eu"));
        assert!(!matches("orders", "eu-orders"));
        assert!(matches(r"\w+\.\d{1,3}", "a_b.42"));
        assert!(!matches("", "a"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for (pattern, why) in [
            ("a)|(b", "unopened group"),
            ("[a", "unclosed character class"),
            (r"(a)\1", "backreferences"),
            ("(?=a)", "look-around"),
            ("((a{100}){100}){100}", "when compiled"),
        ] {
            let error = Pattern::new(pattern).unwrap_err();
            assert_eq!(error.code(), "invalid_pattern");
            assert!(error.to_string().contains(why), "{error}");
        }
        assert!(Pattern::new(&"a".repeat(MAX_BYTES + 1)).is_err());
    }
}
