//! Frame boundaries in the bytes that go by: whether the client is in the middle of a message.
//!
//! tungstenite keeps what is incomplete to itself, and the deadline of a message begins with its first
//! byte. Only lengths are looked at; whether the frames are legal is tungstenite's to say.

/// Longest frame header (RFC 6455 §5.2): two bytes, an extended length, and the mask.
const HEADER_BYTES_MAX: usize = 14;

/// The place in the stream of frames up to which bytes went by.
#[derive(Debug, Default)]
pub(super) struct Progress {
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: usize,
    payload_left: u64,
    /// The last data frame was not the last of its message.
    in_fragments: bool,
}

impl Progress {
    /// Bytes go by. True when a message or control frame ended among them, outside of a message.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) -> bool {
        let mut ended = false;
        while !bytes.is_empty() {
            if self.payload_left == 0 {
                self.header[self.header_bytes] = bytes[0];
                self.header_bytes += 1;
                bytes = &bytes[1..];
                if self.header_bytes < header_length(&self.header[..self.header_bytes]) {
                    continue;
                }
                self.payload_left = payload_length(&self.header);
            } else {
                let here = bytes.len().min(usize::try_from(self.payload_left).unwrap_or(usize::MAX));
                self.payload_left -= here as u64;
                bytes = &bytes[here..];
            }
            if self.payload_left == 0 {
                self.end_frame();
                ended |= !self.is_inside();
            }
        }
        ended
    }

    /// True between the first and the last byte of a message or frame.
    pub(super) fn is_inside(&self) -> bool {
        self.header_bytes > 0 || self.in_fragments
    }

    fn end_frame(&mut self) {
        let is_control = self.header[0] & 0x08 != 0;
        if !is_control {
            self.in_fragments = self.header[0] & 0x80 == 0;
        }
        self.header_bytes = 0;
    }
}

/// Length of the header of which this is the beginning; at least one more than what is there until it is
/// known.
fn header_length(begun: &[u8]) -> usize {
    let Some(second) = begun.get(1) else { return 2 };
    let extended = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    2 + extended + mask
}

/// Length of the payload, from a whole header.
fn payload_length(header: &[u8; HEADER_BYTES_MAX]) -> u64 {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    match header[1] & 0x7f {
        126 => number(&header[2..4]),
        127 => number(&header[2..10]),
        length => u64::from(length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![first];
        match length {
            0..=125 => frame.push(0x80 | length as u8),
            126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                frame.push(0x80 | 127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&[1, 2, 3, 4]);
        frame.resize(frame.len() + length, b'x');
        frame
    }

    #[test]
    fn a_message_ends_with_its_last_byte_however_it_is_cut() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let message = frame(0x81, length);
            for cut in [1, 2, 3, 7, 13, 1000] {
                let mut progress = Progress::default();
                let pieces: Vec<_> = message.chunks(cut).collect();
                for piece in &pieces[..pieces.len() - 1] {
                    assert!(!progress.pass(piece) && progress.is_inside(), "{length} by {cut}");
                }
                assert!(
                    progress.pass(pieces[pieces.len() - 1]) && !progress.is_inside(),
                    "{length} by {cut}"
                );
            }
        }
    }

    #[test]
    fn a_control_frame_does_not_end_a_fragmented_message() {
        let mut progress = Progress::default();
        assert!(!progress.pass(&frame(0x01, 3)) && progress.is_inside());
        assert!(!progress.pass(&frame(0x89, 5)) && progress.is_inside());
        assert!(!progress.pass(&frame(0x00, 0)) && progress.is_inside());
        assert!(progress.pass(&frame(0x80, 1)) && !progress.is_inside());
        assert!(progress.pass(&frame(0x89, 0)) && !progress.is_inside());
    }

    #[test]
    fn a_message_may_end_and_another_begin_in_one_read() {
        let mut progress = Progress::default();
        let mut both = frame(0x81, 4);
        both.extend_from_slice(&frame(0x81, 4)[..3]);
        assert!(progress.pass(&both) && progress.is_inside());
    }
}
