//! Results of the API methods and of the rpc methods, in a form that writes itself.
//!
//! History and presence share their results with the commands of the same names, see
//! [`crate::protocol::reply`].

use std::sync::Arc;

use super::ApiError;
use super::page::{Page, written_bytes};
use crate::ids::{Channel, Seq};
use crate::protocol::object::{Object, WriteMembers, write_object};

/// The empty result: `unsubscribe`, `disconnect`, `contact_remove`, rpc `contacts.remove`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Done;

impl WriteMembers for Done {
    fn write(&self, _: &mut Object<'_>) {}
}

/// Result of `publish`, also as rpc.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PublishResult<'a> {
    /// The position of the message; 0 in channels that keep nothing.
    pub offset: Seq,
    /// The epoch of the position; empty in channels that keep nothing.
    pub epoch: &'a str,
}

impl WriteMembers for PublishResult<'_> {
    fn write(&self, object: &mut Object<'_>) {
        object.some_number("offset", self.offset);
        object.some_string("epoch", self.epoch);
    }
}

/// Result of `broadcast`: one answer a channel, in the order of the request.
#[derive(Debug)]
pub(crate) struct BroadcastResult<'a>(pub &'a [Result<PublishResult<'a>, ApiError>]);

impl WriteMembers for BroadcastResult<'_> {
    fn write(&self, object: &mut Object<'_>) {
        object.list("responses", self.0);
    }
}

/// Result of a `broadcast` whose answers would be too many: how many channels got the message, and the first of
/// those that did not.
#[derive(Debug)]
pub(crate) struct BroadcastSummary<'a> {
    /// Channels that got it.
    pub published: u64,
    /// Channels that did not.
    pub refused: u64,
    /// The first of the latter.
    pub errors: &'a [ChannelError<'a>],
}

impl WriteMembers for BroadcastSummary<'_> {
    fn write(&self, object: &mut Object<'_>) {
        object.list::<ChannelError<'_>>("responses", []);
        object.number("published", self.published);
        object.number("refused", self.refused);
        object.list("errors", self.errors);
    }
}

/// The error of one channel.
#[derive(Debug)]
pub(crate) struct ChannelError<'a> {
    /// The channel.
    pub channel: &'a Channel,
    /// What went wrong there.
    pub error: &'a ApiError,
}

impl WriteMembers for ChannelError<'_> {
    fn write(&self, object: &mut Object<'_>) {
        object.string("channel", self.channel.as_str());
        object.object("error", self.error);
    }
}

impl WriteMembers for Result<PublishResult<'_>, ApiError> {
    fn write(&self, object: &mut Object<'_>) {
        match self {
            Ok(result) => object.object("result", result),
            Err(error) => object.object("error", error),
        }
    }
}

/// Result of `channels`: active channels and how many listen to each.
#[derive(Debug)]
pub(crate) struct ChannelsResult<'a>(pub &'a Page<(Channel, u64)>);

impl WriteMembers for ChannelsResult<'_> {
    fn write(&self, object: &mut Object<'_>) {
        object.object("channels", &ByName(&self.0.entries));
        self.0.write_next(object);
    }
}

impl ChannelsResult<'_> {
    /// The bytes of one entry.
    pub(crate) fn entry_bytes((channel, listeners): &(Channel, u64)) -> usize {
        let entry = [(channel.clone(), *listeners)];
        written_bytes(&ByName(&entry))
    }
}

struct ByName<'a>(&'a [(Channel, u64)]);

impl WriteMembers for ByName<'_> {
    fn write(&self, object: &mut Object<'_>) {
        for &(ref channel, listeners) in self.0 {
            write_object(object.key(channel.as_str()), &NumClients(listeners));
        }
    }
}

struct NumClients(u64);

impl WriteMembers for NumClients {
    fn write(&self, object: &mut Object<'_>) {
        object.number("num_clients", self.0);
    }
}

/// Result of `info`: one entry a node.
#[derive(Debug)]
pub(crate) struct InfoResult<'a>(pub &'a [NodeInfo<'a>]);

impl WriteMembers for InfoResult<'_> {
    fn write(&self, object: &mut Object<'_>) {
        object.list("nodes", self.0);
    }
}

/// One server process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct NodeInfo<'a> {
    /// Unique id of the process.
    pub uid: &'a str,
    /// Name of the machine or process.
    pub name: &'a str,
    /// Version of the server.
    pub version: &'a str,
    /// Connections.
    pub num_clients: u64,
    /// Distinct users among them.
    pub num_users: u64,
    /// Active channels.
    pub num_channels: u64,
    /// Subscriptions.
    pub num_subs: u64,
    /// Seconds since the process started.
    pub uptime: u64,
}

impl WriteMembers for NodeInfo<'_> {
    fn write(&self, object: &mut Object<'_>) {
        object.string("uid", self.uid);
        object.string("name", self.name);
        object.string("version", self.version);
        object.number("num_clients", self.num_clients);
        object.number("num_users", self.num_users);
        object.number("num_channels", self.num_channels);
        object.number("num_subs", self.num_subs);
        object.number("uptime", self.uptime);
    }
}

/// A contact: the other user, and the room of the two. Result of adding one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContactResult {
    /// The other user.
    pub user: Arc<str>,
    /// The room of the two.
    pub channel: Channel,
}

impl WriteMembers for ContactResult {
    fn write(&self, object: &mut Object<'_>) {
        object.string("user", &self.user);
        object.string("channel", self.channel.as_str());
    }
}

/// Result of `contacts` and rpc `contacts.list`.
#[derive(Debug)]
pub(crate) struct ContactsResult<'a>(pub &'a Page<ContactResult>);

impl WriteMembers for ContactsResult<'_> {
    fn write(&self, object: &mut Object<'_>) {
        self.0.write(object, "contacts");
    }
}

/// Result of `room_create` and `room_info`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RoomResult<'a> {
    /// The channel.
    pub channel: &'a Channel,
    /// `direct`, `group` or `public`.
    pub kind: &'a str,
    /// The newest position.
    pub head: Seq,
    /// The epoch of the position.
    pub epoch: &'a str,
    /// Time the room was created, milliseconds since 1970 UTC.
    pub created_at_ms: i64,
    /// Time of the newest message, or of the creation before the first; milliseconds since 1970 UTC.
    pub last_activity_ms: i64,
    /// Number of present listeners.
    pub num_clients: u64,
    /// The users listed as members.
    pub members: &'a Page<RoomMember>,
}

/// One member of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoomMember {
    /// The user.
    pub user: Arc<str>,
    /// The last position the user has read.
    pub last_read: Seq,
}

impl WriteMembers for RoomMember {
    fn write(&self, object: &mut Object<'_>) {
        object.string("user", &self.user);
        object.number("last_read", self.last_read);
    }
}

impl WriteMembers for RoomResult<'_> {
    fn write(&self, object: &mut Object<'_>) {
        object.string("channel", self.channel.as_str());
        object.string("kind", self.kind);
        object.number("head", self.head);
        object.string("epoch", self.epoch);
        object.number("created_at", milliseconds(self.created_at_ms));
        object.number("last_activity", milliseconds(self.last_activity_ms));
        object.number("num_clients", self.num_clients);
        self.members.write(object, "members");
    }
}

/// Result of rpc `rooms.read`: the position that holds now, which never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReadResult {
    /// The last position read.
    pub last_read: Seq,
    /// Number of newer messages.
    pub unread: u64,
}

impl WriteMembers for ReadResult {
    fn write(&self, object: &mut Object<'_>) {
        object.number("last_read", self.last_read);
        object.number("unread", self.unread);
    }
}

/// Result of rpc `rooms.unread`: the rooms the user is a member of.
#[derive(Debug)]
pub(crate) struct UnreadResult<'a>(pub &'a Page<UnreadRoom>);

impl WriteMembers for UnreadResult<'_> {
    fn write(&self, object: &mut Object<'_>) {
        self.0.write(object, "rooms");
    }
}

/// The read position of one room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnreadRoom {
    /// The channel.
    pub channel: Channel,
    /// The newest position.
    pub head: Seq,
    /// The last position read.
    pub last_read: Seq,
}

impl WriteMembers for UnreadRoom {
    fn write(&self, object: &mut Object<'_>) {
        object.string("channel", self.channel.as_str());
        object.number("head", self.head);
        object.number("last_read", self.last_read);
        object.number("unread", self.head.saturating_sub(self.last_read));
    }
}

fn milliseconds(time: i64) -> u64 {
    u64::try_from(time).unwrap_or(0)
}
