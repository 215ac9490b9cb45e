//! The configuration as given: every key optional, each value with the place it was given.
//!
//! The sections below are the one table of keys: the reader of the file, the reader of the
//! environment, the documentation tests and `keys()` all derive from it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::value::{ByteSize, Kind, Literal};
use super::{Audience, DatabaseUrl, Delivery, Durability, Origin, Problem, Secret};

/// A key of the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The section, empty for the top; `namespace.NAME` stands for every named namespace.
    pub section: &'static str,
    /// The name inside the section.
    pub name: &'static str,
    /// The default, as TOML.
    pub default: &'static str,
    /// What it means.
    pub help: &'static str,
}

impl Key {
    /// `section.name`
    #[must_use]
    pub fn path(&self) -> String {
        join(self.section, self.name)
    }

    /// The environment variable; `NAME` stands for the upper-cased name of a namespace.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("ROOMCAST_{}", self.path().replace('.', "_").to_ascii_uppercase())
    }
}

/// A value and where it was given.
#[derive(Debug, Clone)]
pub(super) struct Given<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// Where a value was given, and for which key.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) origin: Origin,
    pub(super) key: String,
}

impl Place {
    pub(super) fn problem(&self, message: impl Into<String>) -> Problem {
        Problem { origin: self.origin.clone(), key: self.key.clone(), message: message.into() }
    }
}

/// Why a value was not taken.
#[derive(Debug)]
pub(super) enum Refusal {
    /// There is no such key.
    Unknown,
    /// The key exists, the value is wrong.
    Wrong(String),
}

/// Declares one section: its struct, its table of keys and how a key is set by name.
macro_rules! section {
    ($(#[doc = $doc:literal])+ $name:ident in $section:literal {
        $($(#[doc = $help:literal])+ $key:ident: $kind:ty = $default:literal,)+
    }) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Default)]
        pub(super) struct $name {
            $($(#[doc = $help])+ pub(super) $key: Option<Given<$kind>>,)+
        }

        impl $name {
            const KEYS: &'static [Key] = &[$(Key {
                section: $section,
                name: stringify!($key),
                default: $default,
                help: concat!($($help),+).trim_ascii(),
            },)+];

            fn set(&mut self, name: &str, literal: Literal<'_>, place: Place) -> Result<(), Refusal> {
                match name {
                    $(stringify!($key) => {
                        let value = <$kind>::read_or_explain(literal).map_err(Refusal::Wrong)?;
                        self.$key = Some(Given { value, place });
                    })+
                    _ => return Err(Refusal::Unknown),
                }
                Ok(())
            }
        }
    };
}

section! {
    /// The keys outside any section.
    RawServer in "" {
        /// Address and port to listen on.
        listen: SocketAddr = r#""127.0.0.1:8000""#,
        /// Broadcast workers; 0 = one per available core.
        workers: u64 = "0",
        /// Time for queued messages to reach the sockets at shutdown.
        shutdown_grace: Duration = r#""5s""#,
    }
}

section! {
    /// `[database]`
    RawDatabase in "database" {
        /// Where messages live: `sqlite:FILE`, or `postgres://USER:PASSWORD@HOST/DATABASE`.
        url: DatabaseUrl = r#""sqlite:roomcast.db""#,
        /// `full`: an acked message survives power loss; `normal`: it survives a crash of the server, a power loss may take the last moments.
        durability: Durability = r#""full""#,
        /// Connections that only read: history, resumes, catch-up.
        read_connections: u64 = "4",
        /// Commits that may run side by side; 0 = 4 on PostgreSQL and 1 on SQLite, which allows no other.
        commit_lanes: u64 = "0",
        /// Most messages in one commit.
        batch_rows_max: u64 = "1024",
        /// Most payload bytes in one commit.
        batch_bytes_max: ByteSize = r#""4MiB""#,
    }
}

section! {
    /// `[client]`
    RawClient in "client" {
        /// Anyone may connect, subscribe and publish; tokens that are presented are still verified.
        insecure: bool = "false",
        /// HS256 key of connection and subscription tokens, at least 16 bytes; empty = none.
        token_hmac_secret: Secret = r#""""#,
        /// The `aud` claim that tokens must carry; empty = any.
        token_audience: String = r#""""#,
        /// The `iss` claim that tokens must carry; empty = any.
        token_issuer: String = r#""""#,
        /// A connection without a token is the anonymous user instead of being refused.
        allow_anonymous: bool = "false",
        /// Origins besides the server's own from which a browser may connect; `*` matches any run of characters.
        allowed_origins: Vec<String> = "[]",
        /// Time between two pings of the server.
        ping_interval: Duration = r#""25s""#,
        /// Time a client has to answer a ping; shorter than `ping_interval`.
        pong_timeout: Duration = r#""8s""#,
        /// Time a client has to send `connect`.
        connect_timeout: Duration = r#""15s""#,
        /// Time past the expiry of a token in which a fresh one is awaited.
        expired_close_delay: Duration = r#""25s""#,
        /// Most subscriptions of one connection.
        channels_max: u64 = "128",
        /// Largest incoming WebSocket message; at least 4 KiB more than the largest `message_bytes_max` of a namespace.
        message_bytes_max: ByteSize = r#""512KiB""#,
        /// Bytes queued for one connection before it is served from the database at its own pace.
        outbox_bytes_max: ByteSize = r#""256KiB""#,
        /// Time after which a socket that takes no byte at all is closed.
        stall_timeout: Duration = r#""60s""#,
        /// Commands one connection may send per second.
        commands_per_second_max: u64 = "50000",
        /// Most connections at once; 0 = as many as the limits of the system allow.
        connections_max: u64 = "0",
    }
}

section! {
    /// `[api]`
    RawApi in "api" {
        /// Key that `X-API-Key` must carry; empty = the HTTP API is served in open mode only.
        key: Secret = r#""""#,
    }
}

section! {
    /// `[rooms]`
    RawRooms in "rooms" {
        /// A room without listeners and messages for this long leaves memory.
        idle_timeout: Duration = r#""10m""#,
        /// Rooms with more listeners than this are never served by the sender's own thread; 0 = none is.
        inline_max_listeners: u64 = "64",
        /// Longest time the sender's own thread is expected to take for all listeners of a room.
        inline_max_cost: Duration = r#""200us""#,
        /// Rooms with fewer listeners than this are never split over all cores; more than `inline_max_listeners`.
        parallel_min_listeners: u64 = "256",
        /// Time one thread is expected to take from which on the listeners are split over all cores.
        parallel_min_cost: Duration = r#""16ms""#,
        /// Threads that serve resumes and slow listeners from the database.
        catch_up_workers: u64 = "2",
    }
}

section! {
    /// `[log]`
    RawLog in "log" {
        /// What is logged, such as `info`, `warn` or `info,roomcast=debug`.
        filter: String = r#""info""#,
        /// One JSON object a line instead of text for people.
        json: bool = "false",
    }
}

section! {
    /// `[default_namespace]` and `[namespace.NAME]`
    RawNamespace in "default_namespace" {
        /// Messages are stored and numbered; false: they are only passed on, and dropped for who is slow.
        persist: bool = "true",
        /// Newest messages that stay readable; 0 = all.
        history_size: u64 = "0",
        /// Age after which messages are no longer readable; `0s` = never.
        history_ttl: Duration = r#""0s""#,
        /// Presence can be asked for.
        presence: bool = "true",
        /// Joins and leaves are pushed to the listeners of small rooms.
        join_leave: bool = "true",
        /// Rooms with more listeners than this push no joins and leaves.
        join_leave_max_listeners: u64 = "100",
        /// Rooms with more listeners than this answer presence with counts, without the list.
        presence_max_listeners: u64 = "1000",
        /// Every user is subscribed by the server to the personal channel, `#USER` here or `NAME:#USER`, at connect.
        personal: bool = "false",
        /// Subscribing needs a subscription token.
        token_required: bool = "false",
        /// A room comes into being with its first message; false: only through the API.
        auto_create: bool = "true",
        /// Who may subscribe: `nobody`, `members`, `subscribers`, `users` or `everyone`.
        subscribe: Audience = r#""everyone""#,
        /// Who may publish.
        publish: Audience = r#""subscribers""#,
        /// Who may read presence.
        read_presence: Audience = r#""subscribers""#,
        /// Who may read history, and recover by it.
        read_history: Audience = r#""subscribers""#,
        /// Who delivers: `auto` (the cheapest way, see `[rooms]`), `inline`, `worker` or `parallel`.
        strategy: Delivery = r#""auto""#,
        /// Largest payload of a message.
        message_bytes_max: ByteSize = r#""64KiB""#,
    }
}

/// Everything that was given.
#[derive(Debug, Clone, Default)]
pub(super) struct RawConfig {
    pub(super) server: RawServer,
    pub(super) database: RawDatabase,
    pub(super) client: RawClient,
    pub(super) api: RawApi,
    pub(super) rooms: RawRooms,
    pub(super) log: RawLog,
    pub(super) default_namespace: RawNamespace,
    pub(super) namespaces: BTreeMap<String, RawNamespace>,
}

/// Longest name of a namespace: metrics carry it, and a channel must have room for the rest.
const NAMESPACE_BYTES_MAX: usize = 64;

/// Section under which `keys()` lists the options of named namespaces.
pub(super) const NAMED: &str = "namespace.NAME";

/// Every key there is, in the order of the documentation.
pub fn keys() -> impl Iterator<Item = Key> {
    let sections = [
        RawServer::KEYS,
        RawDatabase::KEYS,
        RawClient::KEYS,
        RawApi::KEYS,
        RawRooms::KEYS,
        RawLog::KEYS,
        RawNamespace::KEYS,
    ];
    let named = RawNamespace::KEYS.iter().map(|key| Key { section: NAMED, ..*key });
    sections.into_iter().flatten().copied().chain(named)
}

impl RawConfig {
    /// Takes one value for the key `section.name`; a later one replaces an earlier one.
    pub(super) fn set(
        &mut self,
        section: &str,
        name: &str,
        literal: Literal<'_>,
        origin: Origin,
    ) -> Result<(), Refusal> {
        let place = Place { origin, key: join(section, name) };
        match section {
            "" => self.server.set(name, literal, place),
            "database" => self.database.set(name, literal, place),
            "client" => self.client.set(name, literal, place),
            "api" => self.api.set(name, literal, place),
            "rooms" => self.rooms.set(name, literal, place),
            "log" => self.log.set(name, literal, place),
            "default_namespace" => self.default_namespace.set(name, literal, place),
            _ => match section.strip_prefix("namespace.") {
                Some(namespace) => {
                    self.namespace(namespace).map_err(Refusal::Wrong)?.set(name, literal, place)
                }
                None => Err(Refusal::Unknown),
            },
        }
    }

    /// The options of a named namespace, which is thereby configured.
    pub(super) fn namespace(&mut self, name: &str) -> Result<&mut RawNamespace, String> {
        let legal = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
        if name.is_empty() || name.len() > NAMESPACE_BYTES_MAX || !name.bytes().all(legal) {
            return Err(format!(
                "the name of a namespace is 1 to {NAMESPACE_BYTES_MAX} of the characters a-z 0-9 _ -, got {name:?}"
            ));
        }
        Ok(self.namespaces.entry(name.to_owned()).or_default())
    }
}

/// `section.name`, or the name alone at the top.
pub(super) fn join(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_key_can_be_set_to_its_documented_default() {
        for key in keys() {
            let value = toml::de::DeValue::parse(key.default).unwrap();
            let section = key.section.replace("NAME", "chat");
            let set =
                RawConfig::default().set(&section, key.name, Literal::Toml(value.get_ref()), Origin::Default);
            assert!(set.is_ok(), "{}: {set:?}", key.path());
        }
    }

    #[test]
    fn no_two_keys_share_a_variable() {
        let variables: HashSet<_> = keys().map(|key| key.variable()).collect();
        assert_eq!(variables.len(), keys().count());
    }
}
