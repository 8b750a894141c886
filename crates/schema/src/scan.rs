//! A JSON scanner that validates everything and decodes nothing: it hands out where each field of one
//! object begins and ends, and what kind of value stands there.
//!
//! It accepts what `serde_json` accepts: RFC 8259, valid UTF-8, no lone surrogates in escapes, nesting
//! up to [`MAX_DEPTH`].

/// Objects and arrays inside of one another, the outermost included.
const MAX_DEPTH: u32 = 127;

/// What kind of value a span holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    /// The field is not there.
    Missing,
    Null,
    True,
    False,
    /// Digits alone, with or without a minus.
    Integer,
    /// A number with a fraction or an exponent.
    Decimal,
    /// A string without escapes; the span is what stands between the quotes.
    Plain,
    /// The same with escapes.
    Escaped,
    /// An object or an array.
    Nested,
}

/// A value: where it stands and what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) token: Token,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Span {
    pub(crate) const MISSING: Span = Span {
        token: Token::Missing,
        start: 0,
        end: 0,
    };

    #[inline]
    pub(crate) fn text(self, source: &str) -> &str {
        source.get(self.start..self.end).unwrap_or_default()
    }
}

/// Scans `value` as one JSON object and calls `field` with the key's span (always a string) and the
/// value's for each of its fields. `None` when it is not one valid object, which may show only after
/// some calls. On success, the text that the spans refer to.
#[inline]
pub(crate) fn object(value: &[u8], mut field: impl FnMut(&str, Span, Span)) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    let mut scan = Scan {
        bytes: value,
        at: 0,
    };
    scan.space();
    scan.expect(b'{')?;
    scan.space();
    if scan.peek() == Some(b'}') {
        scan.at += 1;
    } else {
        loop {
            let key = scan.key()?;
            let value = scan.value()?;
            field(text, key, value);
            scan.space();
            match scan.next()? {
                b',' => scan.space(),
                b'}' => break,
                _ => return None,
            }
        }
    }
    scan.space();
    (scan.at == value.len()).then_some(text)
}

/// Whether `text` is one JSON number, and whether it has neither fraction nor exponent.
pub(crate) fn number(text: &str) -> Option<Token> {
    let mut scan = Scan {
        bytes: text.as_bytes(),
        at: 0,
    };
    let span = scan.number()?;
    (span.end == text.len()).then_some(span.token)
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    #[inline]
    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// A key, its colon, and the space up to the value.
    #[inline]
    fn key(&mut self) -> Option<Span> {
        self.expect(b'"')?;
        let key = self.string()?;
        self.space();
        self.expect(b':')?;
        self.space();
        Some(key)
    }

    #[inline]
    fn value(&mut self) -> Option<Span> {
        match self.peek()? {
            b'{' | b'[' => self.nested(),
            _ => self.scalar(),
        }
    }

    #[inline]
    fn scalar(&mut self) -> Option<Span> {
        match self.peek()? {
            b'"' => {
                self.at += 1;
                self.string()
            }
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.word(b"true", Token::True),
            b'f' => self.word(b"false", Token::False),
            b'n' => self.word(b"null", Token::Null),
            _ => None,
        }
    }

    #[inline]
    fn word(&mut self, word: &[u8], token: Token) -> Option<Span> {
        let start = self.at;
        let end = start + word.len();
        if self.bytes.get(start..end)? != word {
            return None;
        }
        self.at = end;
        Some(Span { token, start, end })
    }

    #[inline]
    fn digits(&mut self) -> usize {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        self.at - start
    }

    #[inline]
    fn number(&mut self) -> Option<Span> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let leading_zero = self.peek() == Some(b'0');
        let digits = self.digits();
        if digits == 0 || (leading_zero && digits > 1) {
            return None;
        }
        let mut token = Token::Integer;
        if self.peek() == Some(b'.') {
            self.at += 1;
            token = Token::Decimal;
            if self.digits() == 0 {
                return None;
            }
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            token = Token::Decimal;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            if self.digits() == 0 {
                return None;
            }
        }
        Some(Span {
            token,
            start,
            end: self.at,
        })
    }

    /// The rest of a string, after its opening quote.
    #[inline]
    fn string(&mut self) -> Option<Span> {
        let start = self.at;
        let mut token = Token::Plain;
        loop {
            self.at = skip_plain(self.bytes, self.at);
            match self.next()? {
                b'"' => {
                    return Some(Span {
                        token,
                        start,
                        end: self.at - 1,
                    });
                }
                b'\\' => {
                    token = Token::Escaped;
                    self.escape()?;
                }
                _ => return None,
            }
        }
    }

    /// The rest of an escape, after its backslash.
    #[cold]
    fn escape(&mut self) -> Option<()> {
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => match self.hex()? {
                0xd800..=0xdbff => {
                    self.expect(b'\\')?;
                    self.expect(b'u')?;
                    (0xdc00..=0xdfff).contains(&self.hex()?).then_some(())
                }
                0xdc00..=0xdfff => None,
                _ => Some(()),
            },
            _ => None,
        }
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.bytes.get(self.at..self.at + 4)?;
        self.at += 4;
        digits.iter().try_fold(0, |code, digit| {
            Some(code << 4 | (*digit as char).to_digit(16)?)
        })
    }

    /// An object or an array, without recursion: one bit a level says which of the two it is.
    fn nested(&mut self) -> Option<Span> {
        let start = self.at;
        let mut in_object = 0u128;
        let mut depth = 1;
        loop {
            // A value begins here.
            let open = self.peek()?;
            let mut complete = true;
            if open == b'{' || open == b'[' {
                depth += 1;
                if depth > MAX_DEPTH {
                    return None;
                }
                self.at += 1;
                self.space();
                in_object = in_object << 1 | u128::from(open == b'{');
                let close = if open == b'{' { b'}' } else { b']' };
                if self.peek()? != close {
                    complete = false;
                    if open == b'{' {
                        self.key()?;
                    }
                }
            } else {
                self.scalar()?;
                self.space();
            }
            // After a value, what contains it goes on or ends, and so on outwards.
            while complete {
                let object = in_object & 1 == 1;
                match (self.next()?, object) {
                    (b',', _) => {
                        self.space();
                        if object {
                            self.key()?;
                        }
                        complete = false;
                    }
                    (b'}', true) | (b']', false) => {
                        in_object >>= 1;
                        depth -= 1;
                        if depth == 1 {
                            return Some(Span {
                                token: Token::Nested,
                                start,
                                end: self.at,
                            });
                        }
                        self.space();
                    }
                    _ => return None,
                }
            }
        }
    }
}

/// The first position from `at` on that holds a quote, a backslash or a control character.
#[inline]
fn skip_plain(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    // Eight bytes at a time: the top bit of each byte that is one of the three. Borrows can only set
    // bits above the first true one, and only the first is used.
    while let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*word);
        let zero = |x: u64| x.wrapping_sub(ONES) & !x;
        let found = zero(word ^ (ONES * b'"' as u64))
            | zero(word ^ (ONES * b'\\' as u64))
            | (word.wrapping_sub(ONES * 0x20) & !word);
        let found = found & TOPS;
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while let Some(byte) = bytes.get(at) {
        if matches!(byte, b'"' | b'\\' | 0..0x20) {
            break;
        }
        at += 1;
    }
    at
}

/// Appends what stands between a string's quotes, escapes resolved. The text has passed the scanner.
pub(crate) fn unescape(inner: &str, out: &mut String) {
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        let (plain, escape) = rest.split_at(at);
        out.push_str(plain);
        let hex = |from: usize| {
            escape
                .get(from..from + 4)
                .and_then(|digits| u32::from_str_radix(digits, 16).ok())
                .unwrap_or(0)
        };
        let (resolved, length) = match escape.as_bytes().get(1) {
            Some(b'u') => match hex(2) {
                high @ 0xd800..=0xdbff => {
                    let code =
                        0x10000 + ((high - 0xd800) << 10) + (hex(8).wrapping_sub(0xdc00) & 0x3ff);
                    (char::from_u32(code), 12)
                }
                code => (char::from_u32(code), 6),
            },
            Some(b'b') => (Some('\u{8}'), 2),
            Some(b'f') => (Some('\u{c}'), 2),
            Some(b'n') => (Some('\n'), 2),
            Some(b'r') => (Some('\r'), 2),
            Some(b't') => (Some('\t'), 2),
            Some(other) => (Some(char::from(*other)), 2),
            None => (None, 1),
        };
        out.push(resolved.unwrap_or(char::REPLACEMENT_CHARACTER));
        rest = escape.get(length..).unwrap_or_default();
    }
    out.push_str(rest);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn accepts(value: &[u8]) -> bool {
        object(value, |_, _, _| {}).is_some()
    }

    fn reference(value: &[u8]) -> bool {
        matches!(
            serde_json::from_slice(value),
            Ok(serde_json::Value::Object(_))
        )
    }

    #[test]
    fn the_edges_of_the_grammar() {
        for text in [
            "{}",
            " {\t\r\n} ",
            "{\"a\":1}",
            "{\"a\":1,}",
            "{,}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":01}",
            "{\"a\":-}",
            "{\"a\":-0}",
            "{\"a\":1.}",
            "{\"a\":.5}",
            "{\"a\":1e}",
            "{\"a\":1e+}",
            "{\"a\":1E-7}",
            "{\"a\":+1}",
            "{\"a\":tru}",
            "{\"a\":nulll}",
            "{\"a\":[]}",
            "{\"a\":[1,]}",
            "{\"a\":[1 2]}",
            "{\"a\":[1}}",
            "{\"a\":{\"b\":[{}]}}",
            "{\"a\":{\"b\"}}",
            "{\"a\":{1:2}}",
            "{\"a\":[ 1 , [ ] , { } ]  , \"b\" : { \"c\" : 1 , \"d\" : 2 } }",
            "{} x",
            "{}{}",
            "[]",
            "1",
            "",
            "{",
            "{\"a",
            "{\"a\":\"",
            "{\"a\":\"\\\"}",
            "{\"a\":\"\\u12\"}",
            "{\"a\":\"\\ud83d\\ude00\"}",
            "{\"a\":\"\\ud83d\"}",
            "{\"a\":\"\\ude00\"}",
            "{\"a\":\"\\ud83dx\"}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"line\nbreak\"}",
            "{\"a\":\"\u{7f}é😀\"}",
            "{\"a\\u0000\":\"\\u0000\"}",
        ] {
            assert_eq!(
                accepts(text.as_bytes()),
                reference(text.as_bytes()),
                "{text}"
            );
        }
        assert!(!accepts(b"{\"a\":\"\xff\"}"));
        for depth in [125, 126, 127, 128, 129] {
            let text = format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
            assert_eq!(
                accepts(text.as_bytes()),
                reference(text.as_bytes()),
                "{depth}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn agrees_with_serde_json_on_almost_json(text in r#"\{("[ab\\"u]{0,3}":([0-9.eE+-]{1,4}|"[^"]{0,12}"|\[[0-9,\[\]{}]{0,5}\]|true|null|\{\}),?){0,3}\}"#) {
            // A number too large for a double is an error there and a field's matter here.
            prop_assume!(!serde_json::from_str::<serde_json::Value>(&text).is_err_and(|error| error.to_string().contains("out of range")));
            prop_assert_eq!(accepts(text.as_bytes()), reference(text.as_bytes()));
        }

        #[test]
        fn strings_come_back(text in ".*") {
            let json = serde_json::to_string(&text).unwrap();
            let ascii: String = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
            let mut out = String::new();
            unescape(&json[1..json.len() - 1], &mut out);
            prop_assert_eq!(&out, &text);
            out.clear();
            unescape(&ascii, &mut out);
            prop_assert_eq!(&out, &text);
        }

        #[test]
        fn plain_runs_end_at_the_first_special_byte(bytes in prop::collection::vec(any::<u8>(), 0..40), at in 0usize..10) {
            let expected = (at..bytes.len()).find(|at| matches!(bytes[*at], b'"' | b'\\' | 0..0x20)).unwrap_or(bytes.len().max(at));
            prop_assert_eq!(skip_plain(&bytes, at), expected);
        }
    }
}
