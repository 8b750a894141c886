//! RFC 3339 to milliseconds.

/// Milliseconds since 1970 of an RFC 3339 time such as `2013-01-01T05:00:00-05:00`. A zone is
/// required, a space may stand for the `T`, fractions below milliseconds are cut off, and a leap
/// second is the second after it.
pub fn parse_rfc3339_ms(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let digits = |from: usize, count: usize| -> Option<i64> {
        bytes
            .get(from..from + count)?
            .iter()
            .try_fold(0, |value, digit| {
                digit
                    .is_ascii_digit()
                    .then(|| value * 10 + i64::from(digit - b'0'))
            })
    };
    let is = |at: usize, wanted: u8| (*bytes.get(at)? == wanted).then_some(());

    let (year, month, day) = (digits(0, 4)?, digits(5, 2)?, digits(8, 2)?);
    is(4, b'-')?;
    is(7, b'-')?;
    matches!(bytes.get(10)?, b'T' | b't' | b' ').then_some(())?;
    let (hour, minute, second) = (digits(11, 2)?, digits(14, 2)?, digits(17, 2)?);
    is(13, b':')?;
    is(16, b':')?;
    if !(1..=12).contains(&month)
        || day < 1
        || day > days_in(year, month)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }

    let mut at = 19;
    let mut ms = 0;
    if bytes.get(at) == Some(&b'.') {
        let fraction = bytes[at + 1..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if fraction == 0 {
            return None;
        }
        let kept = fraction.min(3);
        ms = digits(at + 1, kept)? * [1, 100, 10, 1][kept];
        at += 1 + fraction;
    }

    let offset_minutes = match bytes.get(at)? {
        b'Z' | b'z' if bytes.len() == at + 1 => 0,
        sign @ (b'+' | b'-') if bytes.len() == at + 6 => {
            let (hours, minutes) = (digits(at + 1, 2)?, digits(at + 4, 2)?);
            is(at + 3, b':')?;
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = hours * 60 + minutes;
            if *sign == b'-' { -offset } else { offset }
        }
        _ => return None,
    };
    let minutes = (days_since_1970(year, month, day) * 24 + hour) * 60 + minute - offset_minutes;
    Some((minutes * 60 + second) * 1_000 + ms)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The proleptic Gregorian calendar, counted in years that begin in March, so that the leap day is
/// the last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
    use proptest::prelude::*;

    #[test]
    fn known_times() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1969-12-31T23:59:59.999Z", Some(-1)),
            ("2013-01-01T05:00:00-05:00", Some(1_357_034_400_000)),
            ("2013-01-01 10:00:00z", Some(1_357_034_400_000)),
            ("2000-02-29t12:34:56.7890123+00:30", Some(951_825_896_789)),
            ("2016-12-31T23:59:60Z", Some(1_483_228_800_000)),
            ("0000-01-01T00:00:00Z", Some(-62_167_219_200_000)),
            ("1900-02-29T00:00:00Z", None),
            ("2013-01-01T05:00:00", None),
            ("2013-01-01", None),
            ("2013-13-01T00:00:00Z", None),
            ("2013-01-01T24:00:00Z", None),
            ("2013-01-01T00:00:00.Z", None),
            ("2013-01-01T00:00:00+0500", None),
            ("2013-01-01T00:00:00Zz", None),
            ("+013-01-01T00:00:00Z", None),
            ("", None),
        ] {
            assert_eq!(parse_rfc3339_ms(text), ms, "{text}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_arrow(year in 1700i32..2250, month in 1u32..13, day in 1u32..29, second in 0u32..86_400, ms in 0u32..1_000, offset in -1_439i32..1_439) {
            let (sign, minutes) = (if offset < 0 { '-' } else { '+' }, offset.abs());
            let text = format!(
                "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{ms:03}{sign}{:02}:{:02}",
                second / 3_600, second / 60 % 60, second % 60, minutes / 60, minutes % 60
            );
            prop_assert_eq!(parse_rfc3339_ms(&text), Some(string_to_timestamp_nanos(&text).unwrap().div_euclid(1_000_000)));
        }

        #[test]
        fn any_text_is_met_calmly(text in "[0-9TZ:. +-]{0,30}|.*") {
            let _ = parse_rfc3339_ms(&text);
        }
    }
}
