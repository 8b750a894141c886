//! The names that a call's metadata uses, and how text travels in them.

/// Names the tenant of a call; `default` when absent.
pub const TENANT: &str = "mainstem-tenant";
/// The stable word of an error, for programs.
pub const CODE: &str = "mainstem-code";
/// What to do about an error, for people; percent-encoded.
pub const HINT: &str = "mainstem-hint";

/// The tenant of a call that names none.
pub const DEFAULT_TENANT: &str = "default";

/// Encodes text for a metadata value, which holds visible ASCII only.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Decodes what [`encode`] made. What is not percent-encoded stays as it is.
pub fn decode(value: &str) -> String {
    let bytes = value.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = bytes
            .get(at + 1..at + 3)
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match hex {
            Some(decoded) if byte == b'%' => {
                out.push(decoded);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};

    #[test]
    fn any_text_survives_the_metadata() {
        for text in ["plain words", "100 % – naïve\nlines", "", "%41"] {
            let encoded = encode(text);
            assert!(
                encoded.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
                "{encoded}"
            );
            assert_eq!(decode(&encoded), text);
        }
        assert_eq!(decode("50% off"), "50% off");
    }
}
