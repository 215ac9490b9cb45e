//! Names and numbers that identify things: channels, sequence numbers, connections, users.
//!
//! Owns the rules of what a legal name is, so that a value of one of these types is proof that
//! it was checked. Knows nothing else; anybody may use it.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::CHANNEL_BYTES_MAX;

/// Position of a message in its room: 1, 2, 3 … without holes. 0 means "before the first".
///
/// Always below 2^53, so that JavaScript can hold it in a number.
pub type Seq = u64;

/// The name of a room as clients see it: 1 to [`CHANNEL_BYTES_MAX`] bytes of printable ASCII.
///
/// Cloning is a reference count. The part before the first `:` names the namespace.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel(Arc<str>);

/// A text that is not a channel name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelError {
    /// The name is empty.
    Empty,
    /// The name is longer than [`CHANNEL_BYTES_MAX`] bytes.
    TooLong,
    /// The name holds a byte outside printable ASCII (0x21 to 0x7E).
    Byte(u8),
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "the channel name is empty"),
            Self::TooLong => write!(f, "the channel name is longer than {CHANNEL_BYTES_MAX} bytes"),
            Self::Byte(byte) => {
                write!(f, "the channel name holds byte 0x{byte:02x}; only printable ASCII is allowed")
            }
        }
    }
}

impl std::error::Error for ChannelError {}

impl Channel {
    /// Checks a name and makes it a channel.
    ///
    /// # Errors
    /// [`ChannelError`] says what is wrong with the name.
    pub fn new(name: &str) -> Result<Self, ChannelError> {
        if name.is_empty() {
            return Err(ChannelError::Empty);
        }
        if name.len() > CHANNEL_BYTES_MAX {
            return Err(ChannelError::TooLong);
        }
        match name.bytes().find(|byte| !byte.is_ascii_graphic()) {
            Some(byte) => Err(ChannelError::Byte(byte)),
            None => Ok(Self(Arc::from(name))),
        }
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the first `:`, without a leading `$`; empty for the default namespace.
    pub fn namespace(&self) -> &str {
        let name = self.0.strip_prefix('$').unwrap_or(&self.0);
        name.split_once(':').map_or("", |(namespace, _)| namespace)
    }

    /// True for names that start with `$`: a subscription token is required whatever the namespace says.
    pub fn is_private(&self) -> bool {
        self.0.starts_with('$')
    }

    /// The channel of one user: `#USER`, or `NAMESPACE:#USER`. A user id is data and may be any text, so what is not
    /// allowed in a name, or means something in it (`,`, `:`, `#`, `%`), is percent-encoded: `#google%3A7`.
    ///
    /// # Errors
    /// [`ChannelError::TooLong`] when the encoded name is.
    pub fn personal(namespace: &str, user: &str) -> Result<Self, ChannelError> {
        let user = encode_user(user);
        if namespace.is_empty() {
            Self::new(&format!("#{user}"))
        } else {
            Self::new(&format!("{namespace}:#{user}"))
        }
    }

    /// The users a `#user1,user2` suffix limits this channel to; `None` when there is no suffix. Their ids are
    /// percent-decoded.
    pub fn limited_to(&self) -> Option<impl Iterator<Item = Cow<'_, str>>> {
        self.0.split_once('#').map(|(_, users)| users.split(',').map(decode_user))
    }

    /// A number that is the same in every version, on every machine: what shards, commit lanes and topics are
    /// chosen by. The 64 bits of FNV-1a over the name, with the last step of MurmurHash3, which spreads them.
    pub fn stable_hash(&self) -> u64 {
        spread(fnv1a(self.0.as_bytes()))
    }
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

fn spread(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// A user id as it stands in a channel name. Plain ids stay what they are.
fn encode_user(user: &str) -> Cow<'_, str> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b',' | b':' | b'#' | b'%');
    if user.bytes().all(is_plain) {
        return Cow::Borrowed(user);
    }
    let mut name = String::with_capacity(3 * user.len());
    for byte in user.bytes() {
        if is_plain(byte) {
            name.push(char::from(byte));
        } else {
            let digits = [byte >> 4, byte & 15].map(|digit| char::from(HEX[usize::from(digit)]));
            name.extend(['%', digits[0], digits[1]]);
        }
    }
    Cow::Owned(name)
}

/// The user id that a channel name means, whoever has encoded it. A `%` that begins no escape stands for itself;
/// escapes that are no text are left as they are.
fn decode_user(name: &str) -> Cow<'_, str> {
    if !name.contains('%') {
        return Cow::Borrowed(name);
    }
    let (mut bytes, mut rest) = (Vec::with_capacity(name.len()), name.as_bytes());
    while let Some((&byte, behind)) = rest.split_first() {
        let escaped = if byte == b'%' { behind.first_chunk().and_then(escaped_byte) } else { None };
        bytes.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { &behind[2..] } else { behind };
    }
    String::from_utf8(bytes).map_or(Cow::Borrowed(name), Cow::Owned)
}

fn escaped_byte(digits: &[u8; 2]) -> Option<u8> {
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    u8::try_from(high? * 16 + low?).ok()
}

impl FromStr for Channel {
    type Err = ChannelError;

    fn from_str(name: &str) -> Result<Self, ChannelError> {
        Self::new(name)
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// Number of a connection inside this process; never used twice in one run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ConnectionId(pub u64);

impl ConnectionId {
    /// The next number nobody has.
    pub fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Number of one subscription of one connection to one room; a new one for each subscribe, so
/// that a late leave cannot remove a newer subscription.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct SubscriptionId(pub u64);

impl SubscriptionId {
    /// No number is lower.
    pub(crate) const MIN: Self = Self(0);
    /// No number is higher.
    pub(crate) const MAX: Self = Self(u64::MAX);

    /// The next number nobody has.
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_names_are_checked() {
        assert!(Channel::new("news").is_ok());
        assert_eq!(Channel::new(""), Err(ChannelError::Empty));
        assert_eq!(Channel::new(&"x".repeat(256)), Err(ChannelError::TooLong));
        assert_eq!(Channel::new("a b"), Err(ChannelError::Byte(b' ')));
        assert_eq!(Channel::new("a\nb"), Err(ChannelError::Byte(b'\n')));
        assert!(matches!(Channel::new("ä"), Err(ChannelError::Byte(_))));
    }

    /// Where a room lives must not change with a version: the values are FNV-1a's published ones, and ours.
    #[test]
    fn the_hash_is_stable_by_definition() {
        for (text, published) in
            [("", 0xcbf2_9ce4_8422_2325), ("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8)]
        {
            assert_eq!(fnv1a(text.as_bytes()), published, "{text:?}");
        }
        for (name, hash) in [
            ("lobby", 0xb4ea_f00b_b6c1_c767),
            ("chat:42", 0x5204_81a4_ba38_a5d1),
            ("$private:#user", 0xc1d8_c7d9_0e1a_9e3a),
        ] {
            assert_eq!(Channel::new(name).unwrap().stable_hash(), hash, "{name}");
        }
    }

    /// Names that count spread over few and over many parts, by the low bits and by the high ones.
    #[test]
    fn the_hash_spreads_names_that_count() {
        for parts in [2_u64, 4, 7, 16] {
            let (mut low, mut high) = (vec![0; parts as usize], vec![0; parts as usize]);
            for number in 0..8_000 {
                let hash = Channel::new(&format!("room:{number}")).unwrap().stable_hash();
                low[(hash % parts) as usize] += 1;
                high[((hash >> 32) % parts) as usize] += 1;
            }
            let even = 8_000 / parts;
            for count in low.into_iter().chain(high) {
                assert!((even * 4 / 5..=even * 6 / 5).contains(&count), "{count} of {even} in {parts}");
            }
        }
    }

    #[test]
    fn channel_syntax_is_read() {
        let namespace = |name| Channel::new(name).unwrap().namespace().to_owned();
        assert_eq!(namespace("news"), "");
        assert_eq!(namespace("chat:lobby:1"), "chat");
        assert_eq!(namespace("$chat:lobby"), "chat");
        let limited = Channel::new("dialog#ann,bob").unwrap();
        assert_eq!(limited.limited_to().unwrap().collect::<Vec<_>>(), ["ann", "bob"]);
        assert!(Channel::new("news").unwrap().limited_to().is_none());
    }

    #[test]
    fn a_personal_channel_is_of_one_user_whatever_the_id() {
        let plain = "ann@shop.example/7+8=15&x?y(z)~!$'*;_-.|\\^`{}<>[]\"";
        assert_eq!(Channel::personal("", plain).unwrap().as_str(), format!("#{plain}"));
        assert_eq!(Channel::personal("own", "ann").unwrap().as_str(), "own:#ann");
        assert_eq!(Channel::personal("own", "google:7").unwrap().as_str(), "own:#google%3A7");
        let ids = [
            plain, "a,b", "a", "b", "a%2Cb", "a%252Cb", "a#b", "#", "%", "%%", "50%", "%4", "%zz",
            "google:1", "名前", "a b", "a\tb", "\u{7f}", "ä", "%C3%A4", "%ff", "😀",
        ];
        for namespace in ["", "own"] {
            for id in ids {
                let channel = Channel::personal(namespace, id).unwrap();
                assert_eq!(channel.namespace(), namespace, "{id}");
                assert_eq!(channel.limited_to().unwrap().collect::<Vec<_>>(), [id], "{channel}");
            }
        }
        assert_eq!(Channel::personal("", &"ä".repeat(43)), Err(ChannelError::TooLong));
        assert!(Channel::personal("", &"ä".repeat(42)).is_ok());
    }

    #[test]
    fn encoded_users_are_read_whoever_encoded_them() {
        let users = |name| {
            let channel = Channel::new(name).unwrap();
            channel.limited_to().unwrap().map(Cow::into_owned).collect::<Vec<_>>()
        };
        assert_eq!(
            users("talk#ann%40x,b%2cc,50%,%zz,%ff,%C3%A4"),
            ["ann@x", "b,c", "50%", "%zz", "%ff", "ä"]
        );
    }
}
