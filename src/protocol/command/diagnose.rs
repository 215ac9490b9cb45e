//! Finds the fault of a text that is no command, and whether it can still be answered by its id.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::bad::{BadCommand, Broken};
use super::envelope::{EnvelopeMember, parameters};
use crate::protocol::fields;

/// Finds out why a line is no command. Only bad input pays for this second look.
pub(super) fn diagnose(line: &str) -> BadCommand {
    if line.trim_ascii().is_empty() {
        return BadCommand::Close(Broken::Blank);
    }
    let Ok(Outline { id, method }) = serde_json::from_str(line) else {
        return BadCommand::Close(Broken::Malformed);
    };
    match method {
        Some((EnvelopeMember::Send, _)) => BadCommand::Close(Broken::Malformed),
        Some(_) if id == 0 => BadCommand::Close(Broken::NoId),
        Some((member, channel)) if channel.is_missing_in(member) => BadCommand::Close(Broken::NoChannel),
        Some((member, _)) => BadCommand::Refuse { id, connect: member == EnvelopeMember::Connect },
        None => BadCommand::Close(Broken::Malformed),
    }
}

/// The part of a bad command that has to be readable for an answer by its id.
struct Outline {
    id: u32,
    method: Option<(EnvelopeMember, NamedChannel)>,
}

/// True when the parameters name a channel at all, legal or not.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct NamedChannel {
    #[serde(deserialize_with = "is_named")]
    channel: bool,
}

impl NamedChannel {
    const fn is_missing_in(self, member: EnvelopeMember) -> bool {
        let needed = !matches!(
            member,
            EnvelopeMember::Connect
                | EnvelopeMember::Ping
                | EnvelopeMember::Rpc
                | EnvelopeMember::Refresh
                | EnvelopeMember::SubRefresh
        );
        needed && !self.channel
    }
}

impl<'de> Deserialize<'de> for Outline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OutlineVisitor;

        impl<'de> Visitor<'de> for OutlineVisitor {
            type Value = Outline;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a command")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Outline, A::Error> {
                let mut outline = Outline { id: 0, method: None };
                while let Some(member) = map.next_key()? {
                    match member {
                        EnvelopeMember::Id => outline.id = map.next_value::<Option<u32>>()?.unwrap_or(0),
                        EnvelopeMember::Unknown => drop(map.next_value::<IgnoredAny>()?),
                        member => outline.note(member, parameters(&mut map)?),
                    }
                }
                Ok(outline)
            }
        }

        deserializer.deserialize_map(OutlineVisitor)
    }
}

impl Outline {
    fn note(&mut self, member: EnvelopeMember, parameters: Option<NamedChannel>) {
        let Some(channel) = parameters else { return };
        if self.method.is_none_or(|(chosen, _)| member <= chosen) {
            self.method = Some((member, channel));
        }
    }
}

fn is_named<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(fields::text(deserializer)?.is_some())
}
