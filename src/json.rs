//! JSON as text: making it compact, and writing strings and numbers.
//!
//! Payloads travel through the program as the text they arrived in, byte for byte, never as parsed values. Owns
//! the rule of what text is fit to be passed on to every client; knows nothing of any message.

use std::fmt;
use std::sync::Arc;

use crate::limits::{JSON_DEPTH_MAX, JSON_EXPONENT_DIGITS_MAX, JSON_NUMBER_BYTES_MAX};

/// Valid JSON that is not passed on. Common client parsers fail on some of it, which would let one sender break
/// every listener of a room; PostgreSQL's `jsonb` fails on the rest, which would break every query over the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// Arrays and objects are nested deeper than [`JSON_DEPTH_MAX`].
    TooDeep,
    /// A number is written with more than [`JSON_NUMBER_BYTES_MAX`] bytes.
    NumberTooLong,
    /// A number has an exponent of more than [`JSON_EXPONENT_DIGITS_MAX`] digits.
    ExponentTooLong,
    /// A number is beyond the range of a double.
    NumberTooLarge,
    /// A string holds the character U+0000.
    NulCharacter,
    /// A string holds one half of a surrogate pair, which is no character.
    LoneSurrogate,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooDeep => write!(f, "the JSON is nested deeper than {JSON_DEPTH_MAX} levels"),
            Self::NumberTooLong => {
                write!(f, "a number in the JSON is longer than {JSON_NUMBER_BYTES_MAX} bytes")
            }
            Self::ExponentTooLong => {
                write!(f, "an exponent in the JSON is longer than {JSON_EXPONENT_DIGITS_MAX} digits")
            }
            Self::NumberTooLarge => write!(f, "a number in the JSON is beyond the range of a double"),
            Self::NulCharacter => write!(f, "a string in the JSON holds the character \\u0000"),
            Self::LoneSurrogate => write!(f, "a string in the JSON holds half of a surrogate pair"),
        }
    }
}

impl std::error::Error for Unfit {}

/// Checks that clients can read the text.
///
/// `valid` must be one valid JSON value: the caller's parser has established that.
///
/// # Errors
/// [`Unfit`] when they cannot.
pub(crate) fn check(valid: &str) -> Result<(), Unfit> {
    inspect(valid.as_bytes()).map(drop)
}

/// The same JSON without the white space between its tokens; strings stay byte for byte.
///
/// `valid` must be one valid JSON value: the caller's parser has established that. The result has
/// no raw line break, because JSON allows none inside a string. Text that holds nothing to strip
/// costs one allocation.
///
/// # Errors
/// [`Unfit`] when clients could not read the text.
pub(crate) fn compact(valid: &str) -> Result<Arc<str>, Unfit> {
    let blanks = inspect(valid.as_bytes())?;
    if blanks == 0 {
        return Ok(Arc::from(valid));
    }
    let mut stripped = String::with_capacity(valid.len() - blanks);
    let mut rest = valid;
    while let Some(start) = rest.find(['"', ' ', '\t', '\r', '\n']) {
        let (before, from) = rest.split_at(start);
        stripped.push_str(before);
        let length = if from.starts_with('"') { string_length(from.as_bytes()) } else { 0 };
        stripped.push_str(&from[..length]);
        rest = if length == 0 { &from[1..] } else { &from[length..] };
    }
    stripped.push_str(rest);
    Ok(Arc::from(stripped))
}

/// Counts the bytes of white space between tokens and checks what [`Unfit`] names.
fn inspect(json: &[u8]) -> Result<usize, Unfit> {
    let (mut at, mut blanks, mut depth) = (0, 0, 0_usize);
    while let Some(&byte) = json.get(at) {
        match byte {
            b'"' => {
                let length = string_length(&json[at..]);
                inspect_string(&json[at..at + length])?;
                at += length;
                continue;
            }
            b'-' | b'0'..=b'9' => {
                at += inspect_number(&json[at..])?;
                continue;
            }
            b' ' | b'\t' | b'\r' | b'\n' => blanks += 1,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > JSON_DEPTH_MAX {
            return Err(Unfit::TooDeep);
        }
        at += 1;
    }
    Ok(blanks)
}

/// Bytes of the number that `json` begins with.
fn inspect_number(json: &[u8]) -> Result<usize, Unfit> {
    let is_of_number = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    let length = json.iter().take_while(is_of_number).count();
    if length > JSON_NUMBER_BYTES_MAX {
        return Err(Unfit::NumberTooLong);
    }
    let number = &json[..length];
    let exponent = memchr::memchr2(b'e', b'E', number).map_or(&[][..], |at| &number[at + 1..]);
    let digits = exponent.iter().filter(|byte| byte.is_ascii_digit()).count();
    if digits > JSON_EXPONENT_DIGITS_MAX {
        return Err(Unfit::ExponentTooLong);
    }
    let may_be_large = digits > 0 || length > f64::MAX_10_EXP as usize;
    if may_be_large && is_infinite(number) { Err(Unfit::NumberTooLarge) } else { Ok(length) }
}

/// True for a number that is no double: parsers of some languages refuse the whole text then, others pass on another
/// value.
fn is_infinite(number: &[u8]) -> bool {
    let number = std::str::from_utf8(number).ok().and_then(|number| number.parse::<f64>().ok());
    number.is_some_and(f64::is_infinite)
}

/// Checks the escapes of a string literal.
fn inspect_string(literal: &[u8]) -> Result<(), Unfit> {
    let mut rest = literal;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let escape = &rest[at..];
        let length = match escaped_unit(escape) {
            None => 2,
            Some(0) => return Err(Unfit::NulCharacter),
            Some(0xd800..0xdc00) => match escaped_unit(&escape[6..]) {
                Some(0xdc00..0xe000) => 12,
                _ => return Err(Unfit::LoneSurrogate),
            },
            Some(0xdc00..0xe000) => return Err(Unfit::LoneSurrogate),
            Some(_) => 6,
        };
        rest = escape.get(length..).unwrap_or_default();
    }
    Ok(())
}

/// The UTF-16 unit of the escape `\uXXXX` that `text` begins with, if it begins with one.
fn escaped_unit(text: &[u8]) -> Option<u16> {
    let digits = std::str::from_utf8(text.strip_prefix(b"\\u")?.get(..4)?).ok()?;
    u16::from_str_radix(digits, 16).ok()
}

/// Bytes of the string literal `json` begins with, both quotes included; all of `json` when the
/// closing one is missing.
fn string_length(json: &[u8]) -> usize {
    let mut at = 1;
    while let Some(&byte) = json.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    json.len()
}

/// Appends JSON in one line: line breaks, which stand between tokens only, become spaces.
pub(crate) fn push_line(out: &mut Vec<u8>, json: &str) {
    let mut rest = json.as_bytes();
    while let Some(at) = memchr::memchr(b'\n', rest) {
        out.extend_from_slice(&rest[..at]);
        out.push(b' ');
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// Appends `text` as a JSON string literal.
pub(crate) fn push_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let short = match byte {
            b'"' | b'\\' => byte,
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0..0x20 => 0,
            _ => continue,
        };
        out.extend_from_slice(&bytes[copied..at]);
        copied = at + 1;
        out.push(b'\\');
        if short == 0 {
            out.extend_from_slice(b"u00");
            out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        } else {
            out.push(short);
        }
    }
    out.extend_from_slice(&bytes[copied..]);
    out.push(b'"');
}

/// Bytes that [`push_string`] appends for `text`.
pub(crate) fn string_bytes(text: &str) -> usize {
    let escapes = text.bytes().map(|byte| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 1,
        0..0x20 => 5,
        _ => 0,
    });
    text.len() + 2 + escapes.sum::<usize>()
}

/// Appends `number` in decimal.
pub(crate) fn push_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compaction_strips_only_between_tokens() {
        for (given, wanted) in [
            ("{}", "{}"),
            ("null", "null"),
            (" 1 ", "1"),
            ("{ \"a\" : [ 1 ,\r\n\t2 ] }", "{\"a\":[1,2]}"),
            ("{\n  \"a b\": \" c  d \"\n}", "{\"a b\":\" c  d \"}"),
            ("[ \"\\\" \", \"\\\\\" , \" \" ]", "[\"\\\" \",\"\\\\\",\" \"]"),
            ("[\"\\n\", \"ä ö\", \"\\ud83d\\ude00 \"]", "[\"\\n\",\"ä ö\",\"\\ud83d\\ude00 \"]"),
            ("[1.50 , 1e3 , -0 ]", "[1.50,1e3,-0]"),
            ("12345678901234567890123", "12345678901234567890123"),
        ] {
            assert_eq!(&*compact(given).unwrap(), wanted, "{given}");
        }
    }

    #[test]
    fn json_that_breaks_clients_is_refused() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(compact(&nested(JSON_DEPTH_MAX)).is_ok());
        assert_eq!(compact(&nested(JSON_DEPTH_MAX + 1)), Err(Unfit::TooDeep));
        assert_eq!(compact(&nested(500_000)), Err(Unfit::TooDeep));
        assert!(compact(&format!("0.{}", "7".repeat(JSON_NUMBER_BYTES_MAX - 2))).is_ok());
        assert_eq!(
            compact(&format!("[{}]", "7".repeat(JSON_NUMBER_BYTES_MAX + 1))),
            Err(Unfit::NumberTooLong)
        );
        for (text, unfit) in [
            (r#""a\u0000b""#, Unfit::NulCharacter),
            (r#"{"\u0000":1}"#, Unfit::NulCharacter),
            (r#"["\\\u0000"]"#, Unfit::NulCharacter),
            (r#""\ud83d""#, Unfit::LoneSurrogate),
            (r#""\uD83Dx""#, Unfit::LoneSurrogate),
            (r#""\ud83d\n""#, Unfit::LoneSurrogate),
            (r#""\ud83d\ud83d\ude00""#, Unfit::LoneSurrogate),
            (r#""\ud83d \ude00""#, Unfit::LoneSurrogate),
            (r#"[1,{"a":"\uDE00"}]"#, Unfit::LoneSurrogate),
            ("1e12345", Unfit::ExponentTooLong),
            ("[1E-00001]", Unfit::ExponentTooLong),
            ("2E622", Unfit::NumberTooLarge),
            (r#"{"a":[-1e309]}"#, Unfit::NumberTooLarge),
            (&format!("1{}", "0".repeat(309)), Unfit::NumberTooLarge),
        ] {
            assert_eq!(compact(text), Err(unfit), "{text}");
        }
        for text in [
            r#""\ud83d\ude00""#,
            r#""\\u0000""#,
            r#""\\\\u0000\u0001\uFFFF""#,
            r#""\"\\\"\ud7ff""#,
            "[1e-1234,-0,0.5E+1,1.7976931348623157e308]",
            &format!("1{}", "0".repeat(308)),
        ] {
            assert_eq!(&*compact(text).unwrap(), text);
        }
        let harmless = format!("\"{}{}\"", "[".repeat(1000), "7".repeat(9000));
        assert_eq!(&*compact(&harmless).unwrap(), harmless);
    }

    #[test]
    fn a_line_has_no_line_break() {
        for (given, wanted) in
            [("", ""), ("[1, 2]", "[1, 2]"), ("\n{\r\n\t\"a\\n\": 1\n\n}\n", " {\r \t\"a\\n\": 1  } ")]
        {
            let mut out = vec![b':'];
            push_line(&mut out, given);
            assert_eq!(String::from_utf8(out).unwrap(), format!(":{wanted}"));
        }
    }

    #[test]
    fn strings_are_escaped() {
        for (given, wanted) in [
            ("", r#""""#),
            ("plain", r#""plain""#),
            ("ä€😀", r#""ä€😀""#),
            ("a\"b\\c", r#""a\"b\\c""#),
            ("\n\r\t", r#""\n\r\t""#),
            ("\0\u{1f}\u{7f}", "\"\\u0000\\u001f\u{7f}\""),
        ] {
            let mut out = Vec::new();
            push_string(&mut out, given);
            assert_eq!(String::from_utf8(out).unwrap(), wanted);
            assert_eq!(serde_json::from_str::<String>(wanted).unwrap(), given);
        }
    }

    #[test]
    fn numbers_are_plain() {
        for number in [0, 7, 10, 9_007_199_254_740_992, u64::MAX] {
            let mut out = Vec::new();
            push_number(&mut out, number);
            assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
    }
}
