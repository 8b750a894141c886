//! A text of several statements, cut at the semicolons that stand outside quotes and comments.

/// The statements, without their semicolons; empty ones are left out.
pub fn statements(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut begin = 0;
    for end in ends(text) {
        found.push(&text[begin..end]);
        begin = end + 1;
    }
    found.push(&text[begin..]);
    found
        .into_iter()
        .map(str::trim)
        .filter(|statement| !is_blank(statement))
        .collect()
}

/// Whether the text ends a statement: what a prompt waits for.
pub fn is_complete(text: &str) -> bool {
    let last = ends(text).last();
    last.is_some_and(|end| is_blank(&text[end + 1..]))
}

/// The places of semicolons that end statements. Every one is a single byte, so they cut at character boundaries.
fn ends(text: &str) -> impl Iterator<Item = usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    let mut ends = Vec::new();
    while let Some(&byte) = bytes.get(at) {
        let rest = &bytes[at..];
        at += match byte {
            // A doubled quote inside ends one quoted part and begins the next: the same in the end.
            b'\'' | b'"' => 2 + rest[1..].iter().take_while(|inner| **inner != byte).count(),
            b'-' if rest.starts_with(b"--") => {
                rest.iter().take_while(|inner| **inner != b'\n').count()
            }
            b'/' if rest.starts_with(b"/*") => rest
                .windows(2)
                .position(|pair| pair == b"*/")
                .map_or(rest.len(), |end| end + 2),
            b';' => {
                ends.push(at);
                1
            }
            _ => 1,
        };
    }
    ends.into_iter()
}

/// Whether there is nothing but blanks and comments.
fn is_blank(text: &str) -> bool {
    let text = text.trim_start();
    if let Some(comment) = text.strip_prefix("--") {
        return comment
            .find('\n')
            .is_none_or(|end| is_blank(&comment[end..]));
    }
    if let Some(comment) = text.strip_prefix("/*") {
        return comment
            .find("*/")
            .is_none_or(|end| is_blank(&comment[end + 2..]));
    }
    text.is_empty()
}

#[cfg(test)]
mod tests {
    use super::{is_complete, statements};

    #[test]
    fn semicolons_in_quotes_and_comments_do_not_cut() {
        let text = "SELECT ';', \"a;b\" -- no; cut\n; /* ; */ SELECT 'it''s;';\n\n;-- the end";
        let found = statements(text);
        assert_eq!(
            found,
            ["SELECT ';', \"a;b\" -- no; cut", "/* ; */ SELECT 'it''s;'"]
        );
        assert_eq!(statements("SELECT 1"), ["SELECT 1"]);
        assert!(statements(" ; -- x").is_empty());
        assert_eq!(statements("SELECT 'open; "), ["SELECT 'open;"]);
    }

    #[test]
    fn a_prompt_knows_when_to_go() {
        assert!(is_complete("SELECT 1;") && is_complete("SELECT 1; -- done"));
        assert!(
            !is_complete("SELECT 1")
                && !is_complete("SELECT ';")
                && !is_complete("SELECT 1; SELECT 2")
        );
    }
}
