//! The envelope of a command: its id and its method, parameters included, in one pass over the text.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::method::Method;
use crate::protocol::fields::Fields;

/// A command with its parameters, read in one pass.
pub(super) struct Envelope {
    pub(super) id: u32,
    /// The one that counts of those it names.
    pub(super) method: Option<Method>,
    /// There is no member at all, nulls aside.
    pub(super) empty: bool,
}

/// The members of a command that mean something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
pub(super) enum EnvelopeMember {
    Connect,
    Ping,
    Subscribe,
    Unsubscribe,
    Publish,
    Presence,
    PresenceStats,
    History,
    Rpc,
    Send,
    Refresh,
    SubRefresh,
    Id,
    #[serde(other)]
    Unknown,
}

impl<'de> Deserialize<'de> for Envelope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EnvelopeVisitor;

        impl<'de> Visitor<'de> for EnvelopeVisitor {
            type Value = Envelope;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a command")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Envelope, A::Error> {
                let mut envelope = Envelope { id: 0, method: None, empty: true };
                while let Some(member) = map.next_key()? {
                    envelope.read(member, &mut map)?;
                }
                Ok(envelope)
            }
        }

        deserializer.deserialize_map(EnvelopeVisitor)
    }
}

impl Envelope {
    fn read<'de, A: MapAccess<'de>>(&mut self, member: EnvelopeMember, map: &mut A) -> Result<(), A::Error> {
        let method = match member {
            EnvelopeMember::Connect => parameters(map)?.map(Method::Connect),
            EnvelopeMember::Ping => map.next_value::<Option<IgnoredAny>>()?.map(|_| Method::Ping),
            EnvelopeMember::Subscribe => parameters(map)?.map(Method::Subscribe),
            EnvelopeMember::Unsubscribe => parameters(map)?.map(Method::Unsubscribe),
            EnvelopeMember::Publish => parameters(map)?.map(Method::Publish),
            EnvelopeMember::Presence => parameters(map)?.map(Method::Presence),
            EnvelopeMember::PresenceStats => parameters(map)?.map(Method::PresenceStats),
            EnvelopeMember::History => parameters(map)?.map(Method::History),
            EnvelopeMember::Rpc => parameters(map)?.map(Method::Rpc),
            EnvelopeMember::Send => parameters(map)?.map(Method::Send),
            EnvelopeMember::Refresh => parameters(map)?.map(Method::Refresh),
            EnvelopeMember::SubRefresh => parameters(map)?.map(Method::SubRefresh),
            EnvelopeMember::Id => {
                let id = map.next_value::<Option<u32>>()?;
                self.empty &= id.is_none();
                self.id = id.unwrap_or(0);
                return Ok(());
            }
            EnvelopeMember::Unknown => {
                self.empty &= map.next_value::<Option<IgnoredAny>>()?.is_none();
                return Ok(());
            }
        };
        let Some(method) = method else { return Ok(()) };
        self.empty = false;
        if self.method.as_ref().is_none_or(|chosen| method.rank() <= chosen.rank()) {
            self.method = Some(method);
        }
        Ok(())
    }
}

/// The parameters of a method, which are an object or `null` for none.
pub(super) fn parameters<'de, A: MapAccess<'de>, T: Deserialize<'de>>(
    map: &mut A,
) -> Result<Option<T>, A::Error> {
    Ok(map.next_value::<Option<Fields<T>>>()?.map(|fields| fields.0))
}
