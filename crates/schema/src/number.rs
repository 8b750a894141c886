//! From a JSON number's text to a number. The text has passed the scanner.

use crate::scan::Token;

/// Doubles are exact up to here, so a whole one is certainly the number that was written.
const EXACT: f64 = 9_007_199_254_740_991.0;

/// A whole number of 64 bits, or `None`.
#[inline]
pub(crate) fn int(text: &str, token: Token) -> Option<i64> {
    match token {
        Token::Integer if text.len() <= 18 => {
            let (negative, digits) = text
                .strip_prefix('-')
                .map_or((false, text), |digits| (true, digits));
            let value = digits
                .bytes()
                .fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
            Some(if negative { -value } else { value })
        }
        Token::Integer => text.parse().ok(),
        Token::Decimal => {
            let value = float(text)?;
            (value.fract() == 0.0 && value.abs() <= EXACT).then_some(value as i64)
        }
        _ => None,
    }
}

/// A finite double, or `None`.
#[inline]
pub(crate) fn float(text: &str) -> Option<f64> {
    if let Some(value) = short_decimal(text.as_bytes()) {
        return Some(value);
    }
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

/// What most numbers are: at most 15 digits and no exponent. Digits and power of ten are exact as
/// doubles then, and one division rounds correctly.
#[inline]
fn short_decimal(text: &[u8]) -> Option<f64> {
    const POWERS: [f64; 16] = [
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
    ];
    if text.len() > 16 {
        return None;
    }
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let mut whole = 0u64;
    let mut point = digits.len();
    for (index, byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' => whole = whole * 10 + u64::from(byte - b'0'),
            b'.' => point = index + 1,
            _ => return None,
        }
    }
    if whole > EXACT as u64 {
        return None;
    }
    let value = whole as f64 / POWERS.get(digits.len() - point)?;
    Some(if negative { -value } else { value })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::scan::number;
    use proptest::prelude::*;

    #[test]
    fn whole_numbers() {
        for (text, value) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("3.0", Some(3)),
            ("3e2", Some(300)),
            ("-12.50e1", Some(-125)),
            ("3.5", None),
            ("1e300", None),
            ("9007199254740991.0", Some(9_007_199_254_740_991)),
            ("9007199254740993.0", None),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("-9223372036854775808", Some(i64::MIN)),
            ("-9223372036854775809", None),
            ("99999999999999999999999", None),
        ] {
            assert_eq!(int(text, number(text).unwrap()), value, "{text}");
        }
        assert_eq!(float("1e999"), None);
    }

    proptest! {
        #[test]
        fn doubles_are_those_of_the_standard_library(text in "-?(0|[1-9][0-9]{0,17})(\\.[0-9]{1,17})?(e-?[0-9]{1,2})?") {
            prop_assert_eq!(float(&text).unwrap().to_bits(), text.parse::<f64>().unwrap().to_bits());
        }

        #[test]
        fn integers_come_back(value: i64) {
            prop_assert_eq!(int(&value.to_string(), Token::Integer), Some(value));
        }
    }
}
