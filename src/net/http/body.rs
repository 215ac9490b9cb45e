//! The body of a request: how its length is told, and its bytes while they come (RFC 9112 §6 and §7).
//!
//! Whatever two servers could read in two ways is refused: the rest of such a body would be a request that a proxy
//! in front never saw.

use super::bad_request::BadRequest;
use crate::limits::{HTTP_BODY_BYTES_MAX, HTTP_CHUNK_LINE_BYTES_MAX, HTTP_HEAD_BYTES_MAX};

/// The end of a body, as the head tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// After so many bytes.
    Length(u64),
    /// With the last chunk.
    Chunked,
}

impl Framing {
    /// Reads the lines of `Content-Length` and `Transfer-Encoding`.
    pub(super) fn of<'a>(
        mut lengths: impl Iterator<Item = &'a str>,
        mut encodings: impl Iterator<Item = &'a str>,
        is_http_11: bool,
    ) -> Result<Self, BadRequest> {
        let (length, encoding) = (lengths.next(), encodings.next());
        if lengths.next().is_some() {
            return Err(BadRequest(400, "there is more than one Content-Length"));
        }
        match (length, encoding) {
            (None, None) => Ok(Self::Length(0)),
            (Some(length), None) => Ok(Self::Length(number(length)?)),
            (Some(_), Some(_)) => {
                Err(BadRequest(400, "Content-Length and Transfer-Encoding exclude each other"))
            }
            (None, Some(_)) if !is_http_11 => Err(BadRequest(400, "HTTP/1.0 has no Transfer-Encoding")),
            (None, Some(encoding)) => {
                let is_alone = encodings.next().is_none();
                match is_alone && encoding.eq_ignore_ascii_case("chunked") {
                    true => Ok(Self::Chunked),
                    false => Err(BadRequest(400, "the only Transfer-Encoding is chunked")),
                }
            }
        }
    }

    /// The body that is to come, still empty.
    pub(super) fn body(self) -> Result<Body, BadRequest> {
        match self {
            Self::Chunked => Ok(Body::Chunked(Chunks::default())),
            Self::Length(length) => match usize::try_from(length) {
                Ok(length) if length <= HTTP_BODY_BYTES_MAX => Ok(Body::Length(length)),
                _ => Err(TOO_LARGE),
            },
        }
    }
}

const TOO_LARGE: BadRequest = BadRequest(413, "the request body is too large");
const BAD_CHUNK: BadRequest = BadRequest(400, "the chunks of the body cannot be read");

/// A length, which is digits only: no sign, no blank, no list.
fn number(text: &str) -> Result<u64, BadRequest> {
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_digits).ok_or(BadRequest(400, "Content-Length is not a number"))
}

/// A body that is being read.
#[derive(Debug)]
pub(super) enum Body {
    /// So many bytes.
    Length(usize),
    /// Chunks.
    Chunked(Chunks),
}

impl Body {
    /// True when nothing has to come.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Length(0))
    }

    /// Bytes of memory it holds beside the buffer.
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Self::Length(_) => 0,
            Self::Chunked(chunks) => chunks.data.capacity(),
        }
    }

    /// Reads on at the front of the buffer; true once the body is whole.
    pub(super) fn read(&mut self, buffer: &mut Vec<u8>) -> Result<bool, BadRequest> {
        match self {
            Self::Length(length) => Ok(buffer.len() >= *length),
            Self::Chunked(chunks) => {
                let count = chunks.read(buffer)?;
                buffer.drain(..count);
                Ok(matches!(chunks.part, Part::End))
            }
        }
    }

    /// The content of a body that is whole. Nothing of it stays in the buffer.
    pub(super) fn take(self, buffer: &mut Vec<u8>) -> Vec<u8> {
        match self {
            Self::Length(length) => {
                debug_assert!(buffer.len() >= length, "the body is not whole");
                let rest = buffer.split_off(length);
                std::mem::replace(buffer, rest)
            }
            Self::Chunked(chunks) => chunks.data,
        }
    }
}

/// A body in chunks. Their extensions and the trailers say nothing to this server.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    /// The content so far.
    data: Vec<u8>,
    part: Part,
}

/// What comes next.
#[derive(Debug, Clone, Copy, Default)]
enum Part {
    /// The line with the size of a chunk.
    #[default]
    Size,
    /// So many bytes of a chunk.
    Data(usize),
    /// The line break behind a chunk.
    Break,
    /// A trailer or the last line, after so many bytes of trailers.
    Trailers(usize),
    /// Nothing.
    End,
}

impl Chunks {
    /// Reads on; the number of bytes that were read.
    fn read(&mut self, bytes: &[u8]) -> Result<usize, BadRequest> {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            let (count, next) = match self.part {
                Part::Size => {
                    let Some((line, count)) = line(rest, HTTP_CHUNK_LINE_BYTES_MAX)? else { break };
                    (count, self.chunk(line)?)
                }
                Part::Data(_) | Part::Break if rest.is_empty() => break,
                Part::Data(left) => {
                    let count = left.min(rest.len());
                    self.data.extend_from_slice(&rest[..count]);
                    (count, if count == left { Part::Break } else { Part::Data(left - count) })
                }
                Part::Break => match line(rest, 2)? {
                    None => break,
                    Some((_, count)) => (count, Part::Size),
                },
                Part::Trailers(taken) => {
                    let Some((line, count)) = line(rest, HTTP_HEAD_BYTES_MAX - taken)? else { break };
                    (count, if line.is_empty() { Part::End } else { Part::Trailers(taken + count) })
                }
                Part::End => break,
            };
            self.part = next;
            at += count;
        }
        Ok(at)
    }

    /// The part behind a line with a size.
    fn chunk(&self, line: &[u8]) -> Result<Part, BadRequest> {
        match size(line) {
            None => Err(BAD_CHUNK),
            Some(0) => Ok(Part::Trailers(0)),
            Some(size) if size <= HTTP_BODY_BYTES_MAX - self.data.len() => Ok(Part::Data(size)),
            Some(_) => Err(TOO_LARGE),
        }
    }
}

/// The first line without its end, and its length with it; `None` when more of it has to come. A line break
/// is CR and LF, and neither stands alone.
fn line(bytes: &[u8], bytes_max: usize) -> Result<Option<(&[u8], usize)>, BadRequest> {
    match memchr::memchr2(b'\r', b'\n', bytes) {
        Some(end) if end + 2 > bytes_max => Err(BAD_CHUNK),
        Some(end) => match &bytes[end..] {
            [b'\r', b'\n', ..] => Ok(Some((&bytes[..end], end + 2))),
            [b'\r'] => Ok(None),
            _ => Err(BAD_CHUNK),
        },
        None if bytes.len() + 2 > bytes_max => Err(BAD_CHUNK),
        None => Ok(None),
    }
}

/// The size that a line names in front of its extensions.
fn size(line: &[u8]) -> Option<usize> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, rest) = line.split_at(digits);
    let is_alone = rest.is_empty() || rest.trim_ascii_start().starts_with(b";");
    let digits = std::str::from_utf8(digits).ok().filter(|_| is_alone)?;
    usize::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutation;

    fn framing(lengths: &[&str], encodings: &[&str]) -> Result<Framing, u16> {
        let framing = Framing::of(lengths.iter().copied(), encodings.iter().copied(), true);
        framing.map_err(|BadRequest(status, _)| status)
    }

    #[test]
    fn a_length_is_digits_once() {
        assert_eq!(framing(&[], &[]), Ok(Framing::Length(0)));
        assert_eq!(framing(&["0042"], &[]), Ok(Framing::Length(42)));
        for lengths in [
            &["2", "40"][..],
            &["2", "2"],
            &["2, 2"],
            &["2,40"],
            &["+2"],
            &["-2"],
            &[""],
            &["2 "],
            &["\u{a0}2"],
            &["2\u{fffd}"],
            &["2 2"],
            &["0x2"],
            &["2.0"],
            &["99999999999999999999"],
        ] {
            assert_eq!(framing(lengths, &[]), Err(400), "{lengths:?}");
        }
        let body = |length| Framing::Length(length).body().map_err(|BadRequest(status, _)| status);
        assert!(matches!(body(HTTP_BODY_BYTES_MAX as u64), Ok(Body::Length(HTTP_BODY_BYTES_MAX))));
        assert!(matches!(body(HTTP_BODY_BYTES_MAX as u64 + 1), Err(413)));
    }

    #[test]
    fn chunked_stands_alone() {
        assert_eq!(framing(&[], &["Chunked"]), Ok(Framing::Chunked));
        for encodings in
            [&["chunked", "chunked"][..], &["gzip, chunked"], &["identity"], &[""], &["xchunked"]]
        {
            assert_eq!(framing(&[], encodings), Err(400), "{encodings:?}");
        }
        assert_eq!(framing(&["2"], &["chunked"]), Err(400));
        assert!(Framing::of(std::iter::empty(), ["chunked"].into_iter(), false).is_err(), "HTTP/1.0");
    }

    /// Reads chunks that come in pieces of this many bytes: content and rest, or the status.
    fn read(text: &[u8], piece_bytes: usize) -> Result<(Vec<u8>, Vec<u8>), u16> {
        let (mut body, mut buffer) = (Framing::Chunked.body().unwrap(), Vec::new());
        let mut pieces = text.chunks(piece_bytes);
        loop {
            buffer.extend_from_slice(pieces.next().ok_or(0u16)?);
            if body.read(&mut buffer).map_err(|BadRequest(status, _)| status)? {
                assert_eq!(body.read(&mut buffer), Ok(true), "and it stays so");
                let content = body.take(&mut buffer);
                return Ok((content, [buffer, pieces.collect::<Vec<_>>().concat()].concat()));
            }
        }
    }

    #[test]
    fn chunks_are_put_together_however_they_come() {
        let text = b"3\r\nabc\r\n00A ;x=\"y\";z\r\n0123456789\r\n0;last\r\nDigest: x\r\nA: b\r\n\r\nGET /";
        for piece_bytes in 1..=text.len() {
            let (content, rest) = read(text, piece_bytes).unwrap();
            assert_eq!((&content[..], &rest[..]), (&b"abc0123456789"[..], &b"GET /"[..]), "{piece_bytes}");
        }
        assert_eq!(read(b"0\r\n\r\n", 1), Ok((Vec::new(), Vec::new())));
        assert_eq!(read(b"2\r\n{}\r\n", 3), Err(0), "the last chunk is missing");
    }

    #[test]
    fn chunks_that_could_be_read_otherwise_are_refused() {
        let long_extension =
            [b"2;", "x".repeat(HTTP_CHUNK_LINE_BYTES_MAX).as_bytes(), b"\r\n{}\r\n0\r\n\r\n"].concat();
        let long_trailers = [b"0\r\n", "a: b\r\n".repeat(HTTP_HEAD_BYTES_MAX).as_bytes()].concat();
        for (text, status) in [
            (&b"\r\n{}\r\n0\r\n\r\n"[..], 400),
            (b";x\r\n\r\n", 400),
            (b"0x2\r\n{}\r\n0\r\n\r\n", 400),
            (b"+2\r\n{}\r\n0\r\n\r\n", 400),
            (b" 2\r\n{}\r\n0\r\n\r\n", 400),
            (b"2 2\r\n{}\r\n0\r\n\r\n", 400),
            (b"2\n{}\r\n0\r\n\r\n", 400),
            (b"2;a\n\r\n{}\r\n0\r\n\r\n", 400),
            (b"2;a\rb\r\n{}\r\n0\r\n\r\n", 400),
            (b"2\r\n{}0\r\n\r\n", 400),
            (b"2\r\n{}}\r\n0\r\n\r\n", 400),
            (b"0\r\nA: b\n\r\n", 400),
            (b"11111111111111111\r\n", 400),
            (b"ffffffffffffffff\r\n", 413),
            (b"400001\r\n", 413),
            (&long_extension, 400),
            (&long_trailers, 400),
        ] {
            for piece_bytes in [1, 7, text.len()] {
                let told = String::from_utf8_lossy(&text[..text.len().min(40)]);
                assert_eq!(read(text, piece_bytes), Err(status), "{told:?} by {piece_bytes}");
            }
        }
    }

    #[test]
    fn chunks_together_are_no_larger_than_a_body() {
        let chunk = [&b"100000\r\n"[..], &vec![b'x'; 1 << 20], b"\r\n"].concat();
        let most = [&chunk.repeat(HTTP_BODY_BYTES_MAX >> 20)[..], b"0\r\n\r\n"].concat();
        assert_eq!(read(&most, 4096).unwrap().0.len(), HTTP_BODY_BYTES_MAX);
        let more = [&chunk.repeat(HTTP_BODY_BYTES_MAX >> 20)[..], b"1\r\nx\r\n0\r\n\r\n"].concat();
        assert_eq!(read(&more, 4096), Err(413));
    }

    #[test]
    fn no_bytes_are_read_in_two_ways() {
        let examples = [
            &b"3\r\nabc\r\n00A ;x=\"y\";z\r\n0123456789\r\n0;last\r\nDigest: x\r\nA: b\r\n\r\nGET /"[..],
            b"0\r\n\r\n",
            b"2\r\n{}\r\n0\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            b"ffffffffffffffff\r\n",
        ];
        let mut wholes = 0;
        mutation::each(&examples.map(<[u8]>::to_vec), 20_000, |bytes| {
            let at_once = read(bytes, bytes.len().max(1));
            assert_eq!(at_once, read(bytes, 1), "{}", String::from_utf8_lossy(bytes));
            if let Ok((content, rest)) = at_once {
                wholes += 1;
                assert!(content.len() + rest.len() + 5 <= bytes.len() && bytes.ends_with(&rest));
            }
        });
        assert!(wholes > 1000, "{wholes}");
    }
}
