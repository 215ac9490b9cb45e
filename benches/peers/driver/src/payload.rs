//! What a message carries: when it was to be sent, by whom, and its number. All of
//! fixed width, so that a stamp is read without parsing the JSON around it.
//!
//! The numbers are strings, because JSON allows no zeros in front of a number, and a
//! server that reads and rewrites the JSON (Socket.IO does) keeps strings as they are.

use crate::websocket::find;

const START: &[u8] = b"{\"t\":\"";
const TIME: usize = START.len();
const PUBLISHER: usize = TIME + 19 + 7;
const NUMBER: usize = PUBLISHER + 5 + 7;
const END: usize = NUMBER + 9;

/// Who sent what and when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stamp {
    /// Nanoseconds since the driver started, of the intended and not the actual sending.
    pub(crate) nanoseconds: u64,
    pub(crate) publisher: usize,
    /// The publisher's messages count from 0.
    pub(crate) number: u32,
}

/// The JSON of a message, `size` bytes of it if the stamp leaves room for that.
pub(crate) fn write(out: &mut Vec<u8>, stamp: Stamp, size: usize) {
    out.clear();
    let Stamp { nanoseconds, publisher, number } = stamp;
    let head = format!(r#"{{"t":"{nanoseconds:019}","p":"{publisher:05}","n":"{number:09}","x":""#);
    out.extend_from_slice(head.as_bytes());
    out.resize(size.saturating_sub(2).max(head.len()), b'x');
    out.extend_from_slice(b"\"}");
}

/// The stamp of the message in `bytes`, wherever it begins there.
pub(crate) fn read(bytes: &[u8]) -> Option<Stamp> {
    let bytes = &bytes[find(bytes, START)?..];
    if bytes.len() < END {
        return None;
    }
    Some(Stamp {
        nanoseconds: digits(&bytes[TIME..TIME + 19])?,
        publisher: digits(&bytes[PUBLISHER..PUBLISHER + 5])? as usize,
        number: digits(&bytes[NUMBER..END])? as u32,
    })
}

fn digits(bytes: &[u8]) -> Option<u64> {
    bytes.iter().try_fold(0u64, |sum, byte| {
        byte.is_ascii_digit().then(|| sum.wrapping_mul(10).wrapping_add(u64::from(byte - b'0')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_back_from_within_an_envelope() {
        let stamp = Stamp { nanoseconds: 12_345_678_901, publisher: 7, number: 42 };
        let mut payload = Vec::new();
        write(&mut payload, stamp, 128);
        assert_eq!(payload.len(), 128);
        let envelope = [b"42[\"m\",".as_slice(), &payload, b"]"].concat();
        assert_eq!(read(&envelope), Some(stamp));
        assert!(serde_json::from_slice::<serde_json::Value>(&payload).is_ok());
    }
}
