//! What a fuzzer gives to the parsers of requests.

use super::message::{Head, parse};
use crate::limits::HTTP_HEAD_BYTES_MAX;

/// Reads a request. What passes is within its bound, nothing in it could begin another line, and it ends at the same
/// byte whether it comes at once or byte by byte.
pub fn head(bytes: &[u8]) {
    let Ok(Some((head, length))) = parse(bytes) else { return };
    assert!(length <= bytes.len() && length <= HTTP_HEAD_BYTES_MAX, "a head of {length} bytes");
    let is_one_line = |text: &str| !text.contains(['\r', '\n', '\0']);
    assert!(is_one_line(&head.method) && is_one_line(&head.path), "{head:?}");
    assert!(head.names().all(|name| is_one_line(name) && head.lines(name).all(is_one_line)), "{head:?}");
    assert_eq!(parse(&bytes[..length]).ok().flatten().map(|(_, length)| length), Some(length), "another end");
    let rest = &bytes[length..];
    if let Some(whole) = body(&head, [rest]) {
        let (content, left) = &whole;
        let dripped = body(&head, rest[..rest.len() - left].chunks(1));
        assert_eq!(dripped.map(|(content, _)| content).as_ref(), Some(content), "another body");
    }
}

/// The content of a body that comes in these pieces, and the bytes behind it; `None` when it is refused or not whole.
fn body<'a>(head: &Head, pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<(Vec<u8>, usize)> {
    let mut body = head.body().ok()?;
    let mut buffer = Vec::new();
    let mut is_whole = body.read(&mut buffer).ok()?;
    for piece in pieces {
        buffer.extend_from_slice(piece);
        is_whole = body.read(&mut buffer).ok()?;
    }
    is_whole.then(|| {
        let content = body.take(&mut buffer);
        (content, buffer.len())
    })
}
