//! The whole configuration: the settings outside any section, and the sections.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use super::error::{Origin, Problem};
use super::kind::Literal;
use super::namespaces::{Namespaces, RawNamespaces};
use super::number::{Count, Time};
use super::secret_file;
use super::sections::{
    Api, Client, DELAY, Database, Limits, Log, RawApi, RawClient, RawDatabase, RawLimits, RawLog,
    RawNamespace, RawRooms, Rooms,
};
use super::setting::{Key, Location, Problems, Refusal, join, settings};
use super::text::Address;

settings! {
    /// The whole configuration, checked.
    pub struct Config from RawServer in "" {
        /// Address and port to listen on.
        ///
        /// Loopback, so that a server without secrets is not reachable from elsewhere.
        listen: SocketAddr = "127.0.0.1:8000", Address;
        /// Broadcast workers; 0 = one per available core.
        ///
        /// One shard each. Never 0 in a checked configuration.
        workers: usize = 0, Count(0..=1024);
        /// Most threads that serve connections; those that wait for the database count, silent connections have none.
        ///
        /// Idle connections need none. As many as commits of a slow database are worth waiting for at once.
        readers_max: usize = 1024, Count(1..=16_384);
        /// Time for queued messages to reach the sockets at shutdown.
        ///
        /// Well inside the ten seconds container runtimes wait before they kill.
        shutdown_grace: Duration = "5s", Time(DELAY);
    } and {
        /// `[database]`
        database: Database;
        /// `[client]`
        client: Client;
        /// `[api]`
        api: Api;
        /// `[limits]`
        limits: Limits;
        /// `[rooms]`
        rooms: Rooms;
        /// `[log]`
        log: Log;
        /// `[default_namespace]` and `[namespace.NAME]`
        namespaces: Namespaces;
    }
}

/// Access to the server, decided by the secret and `client.insecure` together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// No secret and not `insecure`: everybody on this machine, nobody else.
    Open,
    /// `insecure`: everybody who can reach the address.
    Insecure,
    /// A secret: clients with a token signed with it.
    Secured,
}

impl Config {
    /// Access to the server.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match (self.client.insecure, &self.client.token_hmac_secret) {
            (true, _) => Mode::Insecure,
            (false, Some(_)) => Mode::Secured,
            (false, None) => Mode::Open,
        }
    }

    /// All settings as if they had been given, those of an illegal namespace left out and told.
    pub(super) fn to_raw(&self, problems: &mut Vec<Problem>) -> RawConfig {
        RawConfig {
            server: self.given(""),
            database: self.database.given("database"),
            client: self.client.given("client"),
            api: self.api.given("api"),
            limits: self.limits.given("limits"),
            rooms: self.rooms.given("rooms"),
            log: self.log.given("log"),
            namespaces: self.namespaces.given(problems),
        }
    }

    /// The whole configuration as TOML that reads back as the same one, except for secrets and the
    /// password of a database URL, which are left out.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut page = String::new();
        write_lines(&mut page, &self.lines());
        let sections = [
            ("database", self.database.lines()),
            ("client", self.client.lines()),
            ("api", self.api.lines()),
            ("limits", self.limits.lines()),
            ("rooms", self.rooms.lines()),
            ("log", self.log.lines()),
        ];
        for (section, lines) in sections {
            write_section(&mut page, section, &lines);
        }
        for namespace in self.namespaces.iter() {
            write_section(&mut page, &namespace.section(), &namespace.effective_lines());
        }
        page
    }
}

fn write_section(page: &mut String, section: &str, lines: &[(&'static str, Option<String>)]) {
    // Writing to a String does not fail.
    let _ = writeln!(page, "\n[{section}]");
    write_lines(page, lines);
}

fn write_lines(page: &mut String, lines: &[(&'static str, Option<String>)]) {
    for (key, value) in lines {
        let _ = match value {
            Some(value) => writeln!(page, "{key} = {value}"),
            // A comment and not a value, so that no shown placeholder can be taken for a secret.
            None => writeln!(page, "# {key} is set and not shown"),
        };
    }
}

/// [`Config`] as given.
#[derive(Debug, Clone, Default)]
pub(super) struct RawConfig {
    pub(super) server: RawServer,
    pub(super) database: RawDatabase,
    pub(super) client: RawClient,
    pub(super) api: RawApi,
    pub(super) limits: RawLimits,
    pub(super) rooms: RawRooms,
    pub(super) log: RawLog,
    pub(super) namespaces: RawNamespaces,
}

/// Section under which [`keys`] lists the options of named namespaces.
pub(super) const NAMED: &str = "namespace.NAME";

/// Every key there is, in the order of the documentation.
pub fn keys() -> impl Iterator<Item = Key> {
    let sections = [
        RawServer::KEYS,
        RawDatabase::KEYS,
        RawClient::KEYS,
        RawApi::KEYS,
        RawLimits::KEYS,
        RawRooms::KEYS,
        RawLog::KEYS,
        RawNamespace::KEYS,
    ];
    let named = RawNamespace::KEYS.iter().map(|key| Key { section: NAMED, ..*key });
    sections.into_iter().flatten().copied().chain(named)
}

/// The secret that a key such as `token_hmac_secret_file` is about: its value names the file.
pub(super) fn secret_of_file(section: &str, name: &str) -> Option<Key> {
    let secret = name.strip_suffix(secret_file::SUFFIX)?;
    keys().find(|key| (key.is_secret)() && key.section == section && key.name == secret)
}

impl RawConfig {
    /// Takes one value for the key `section.name`, or names the file that holds it by `section.name_file`; a
    /// later one replaces an earlier one.
    pub(super) fn set(
        &mut self,
        section: &str,
        name: &str,
        literal: Literal<'_>,
        origin: Origin,
    ) -> Result<(), Refusal> {
        let location = Location { origin, key: join(section, name) };
        let Some(secret) = secret_of_file(section, name) else {
            return self.take(section, name, literal, location);
        };
        let text = secret_file::read(literal).map_err(Refusal::Wrong)?;
        self.take(section, secret.name, Literal::Text(&text), location)
    }

    fn take(
        &mut self,
        section: &str,
        name: &str,
        literal: Literal<'_>,
        location: Location,
    ) -> Result<(), Refusal> {
        match section {
            "" => self.server.set(name, literal, location),
            "database" => self.database.set(name, literal, location),
            "client" => self.client.set(name, literal, location),
            "api" => self.api.set(name, literal, location),
            "limits" => self.limits.set(name, literal, location),
            "rooms" => self.rooms.set(name, literal, location),
            "log" => self.log.set(name, literal, location),
            "default_namespace" => self.namespaces.default.set(name, literal, location),
            _ => match section.strip_prefix("namespace.") {
                Some(named) => {
                    self.namespaces.entry(named).map_err(Refusal::Wrong)?.set(name, literal, location)
                }
                None => Err(Refusal::Unknown),
            },
        }
    }

    /// Every setting given or default, each legal on its own.
    pub(super) fn checked(&self, problems: &mut Problems) -> Config {
        let parts = (
            Database::checked(&self.database, problems),
            Client::checked(&self.client, problems),
            Api::checked(&self.api, problems),
            Limits::checked(&self.limits, problems),
            Rooms::checked(&self.rooms, problems),
            Log::checked(&self.log, problems),
            self.namespaces.checked(problems),
        );
        Config::checked(&self.server, problems, parts)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use toml::de::DeValue;

    use super::*;

    #[test]
    fn every_key_can_be_set_to_its_documented_default() {
        for key in keys() {
            let value = DeValue::parse(key.default).unwrap();
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
