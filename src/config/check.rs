//! Turns what was given into a legal configuration: defaults, ranges, and what must fit together.
//!
//! The check goes on after a problem, with a legal value in place of the wrong one, so that an
//! operator sees all problems at once.

mod namespaces;
mod rules;

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::defaults as d;
use super::raw::{Given, Place, RawApi, RawClient, RawConfig, RawDatabase, RawLog, RawRooms};
use super::value::ByteSize;
use super::{Api, Client, Config, Database, DatabaseUrl, Log, Origin, Problem, Rooms, Secret};

/// Shorter timers would only burn the processor.
const TIMER_MIN: Duration = Duration::from_millis(10);
/// Longer timers are typing errors, and could overflow the clock.
const TIMER_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// Rooms may leave memory sooner than other timers fire: eviction costs nothing but the next look-up.
const IDLE_MIN: Duration = Duration::from_millis(1);
/// A fan-out that takes longer than this is no longer a matter of strategy.
const COST_MAX: Duration = Duration::from_secs(10);
/// Above this, sizes of one message or queue are typing errors.
const BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Above this, counts are typing errors.
const COUNT_MAX: u64 = 1_000_000_000;

/// What the check found.
pub(super) struct Checked {
    pub(super) config: Config,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
}

/// Checks everything; the configuration is only to be used when there are no problems.
pub(super) fn check(raw: &RawConfig) -> Checked {
    let mut checker = Checker::default();
    let config = checker.config(raw);
    checker.check_relations(raw, &config);
    checker.warn(&config);
    Checked { config, problems: checker.problems, warnings: checker.warnings }
}

#[derive(Default)]
struct Checker {
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Checker {
    fn config(&mut self, raw: &RawConfig) -> Config {
        Config {
            listen: given_or(&raw.server.listen, d::LISTEN),
            workers: self.workers(raw),
            shutdown_grace: self.duration(
                &raw.server.shutdown_grace,
                d::SHUTDOWN_GRACE,
                Duration::ZERO..=TIMER_MAX,
            ),
            database: self.database(&raw.database),
            client: self.client(&raw.client),
            api: api(&raw.api),
            rooms: self.rooms(&raw.rooms),
            log: self.log(&raw.log),
            namespaces: self.namespaces(raw),
        }
    }

    fn workers(&mut self, raw: &RawConfig) -> usize {
        match self.count(&raw.server.workers, d::WORKERS, 0..=1024) {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        }
    }

    fn database(&mut self, raw: &RawDatabase) -> Database {
        let url = given_or(&raw.url, DatabaseUrl::Sqlite(PathBuf::from(d::DATABASE_FILE)));
        Database {
            durability: given_or(&raw.durability, d::DURABILITY),
            read_connections: self.count(&raw.read_connections, d::READ_CONNECTIONS, 1..=256),
            commit_lanes: self.commit_lanes(raw, &url),
            batch_rows_max: self.count(&raw.batch_rows_max, d::BATCH_ROWS_MAX, 1..=65_536),
            batch_bytes_max: self.bytes(&raw.batch_bytes_max, d::BATCH_BYTES_MAX, 1024),
            url,
        }
    }

    fn commit_lanes(&mut self, raw: &RawDatabase, url: &DatabaseUrl) -> usize {
        let wanted: usize = self.count(&raw.commit_lanes, 0, 0..=64);
        match url {
            DatabaseUrl::Postgres(_) if wanted == 0 => d::COMMIT_LANES_POSTGRES,
            DatabaseUrl::Postgres(_) => wanted,
            DatabaseUrl::Sqlite(_) => {
                if wanted > d::COMMIT_LANES_SQLITE {
                    self.refuse(
                        place(&raw.commit_lanes, "database.commit_lanes"),
                        format!("SQLite has one writer, so only 1 is possible, got {wanted}; leave it out"),
                    );
                }
                d::COMMIT_LANES_SQLITE
            }
        }
    }

    fn client(&mut self, raw: &RawClient) -> Client {
        let timer = TIMER_MIN..=TIMER_MAX;
        Client {
            insecure: given_or(&raw.insecure, d::INSECURE),
            token_hmac_secret: secret(&raw.token_hmac_secret),
            token_audience: text(&raw.token_audience),
            token_issuer: text(&raw.token_issuer),
            allow_anonymous: given_or(&raw.allow_anonymous, d::ALLOW_ANONYMOUS),
            allowed_origins: self.allowed_origins(raw),
            ping_interval: self.duration(&raw.ping_interval, d::PING_INTERVAL, timer.clone()),
            pong_timeout: self.duration(&raw.pong_timeout, d::PONG_TIMEOUT, timer.clone()),
            connect_timeout: self.duration(&raw.connect_timeout, d::CONNECT_TIMEOUT, timer.clone()),
            expired_close_delay: self.duration(
                &raw.expired_close_delay,
                d::EXPIRED_CLOSE_DELAY,
                Duration::ZERO..=TIMER_MAX,
            ),
            channels_max: self.count(&raw.channels_max, d::CHANNELS_MAX, 1..=COUNT_MAX),
            message_bytes_max: self.bytes(&raw.message_bytes_max, d::CLIENT_MESSAGE_BYTES_MAX, 1024),
            outbox_bytes_max: self.bytes(&raw.outbox_bytes_max, d::OUTBOX_BYTES_MAX, 1024),
            stall_timeout: self.duration(&raw.stall_timeout, d::STALL_TIMEOUT, timer),
            commands_per_second_max: self.count(
                &raw.commands_per_second_max,
                d::COMMANDS_PER_SECOND_MAX,
                1..=COUNT_MAX,
            ),
            connections_max: Some(self.count(&raw.connections_max, d::CONNECTIONS_MAX, 0..=COUNT_MAX))
                .filter(|count| *count > 0),
        }
    }

    fn rooms(&mut self, raw: &RawRooms) -> Rooms {
        Rooms {
            idle_timeout: self.duration(&raw.idle_timeout, d::IDLE_TIMEOUT, IDLE_MIN..=TIMER_MAX),
            inline_max_listeners: self.count(
                &raw.inline_max_listeners,
                d::INLINE_MAX_LISTENERS,
                0..=COUNT_MAX,
            ),
            inline_max_cost: self.duration(
                &raw.inline_max_cost,
                d::INLINE_MAX_COST,
                Duration::ZERO..=COST_MAX,
            ),
            parallel_min_cost: self.duration(
                &raw.parallel_min_cost,
                d::PARALLEL_MIN_COST,
                Duration::ZERO..=COST_MAX,
            ),
            parallel_min_listeners: self.count(
                &raw.parallel_min_listeners,
                d::PARALLEL_MIN_LISTENERS,
                1..=COUNT_MAX,
            ),
            catch_up_workers: self.count(&raw.catch_up_workers, d::CATCH_UP_WORKERS, 1..=256),
        }
    }

    fn log(&mut self, raw: &RawLog) -> Log {
        let filter = given_or(&raw.filter, d::LOG_FILTER.to_owned());
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&filter) {
            self.refuse(
                place(&raw.filter, "log.filter"),
                format!(r#"expected a filter such as "info" or "info,roomcast=debug": {error}"#),
            );
        }
        Log { filter, json: given_or(&raw.json, d::LOG_JSON) }
    }

    fn allowed_origins(&mut self, raw: &RawClient) -> Vec<String> {
        let origins = raw.allowed_origins.as_ref().map_or(&[][..], |given| &given.value);
        for origin in origins {
            if let Some(flaw) = flaw_of_origin(origin) {
                self.refuse(
                    place(&raw.allowed_origins, "client.allowed_origins"),
                    format!(
                        r#"{origin:?} {flaw}; an origin is like "https://chat.example.com" or "https://*.example.com""#
                    ),
                );
            }
        }
        origins.iter().map(|origin| origin.to_ascii_lowercase()).collect()
    }

    /// A whole number in `range`, or the default.
    fn count<T>(&mut self, given: &Option<Given<u64>>, default: T, range: RangeInclusive<u64>) -> T
    where
        T: TryFrom<u64>,
    {
        let Some(Given { value, place }) = given else { return default };
        match T::try_from(*value) {
            Ok(count) if range.contains(value) => count,
            _ => {
                self.refuse(place.clone(), out_of(range.start(), range.end(), value));
                default
            }
        }
    }

    /// A size of at least `min` bytes, or the default.
    fn bytes(&mut self, given: &Option<Given<ByteSize>>, default: usize, min: u64) -> usize {
        let Some(Given { value: ByteSize(value), place }) = given else { return default };
        match usize::try_from(*value) {
            Ok(bytes) if (min..=BYTES_MAX).contains(value) => bytes,
            _ => {
                let shown = format!("{} bytes", out_of(min, BYTES_MAX, value));
                self.refuse(place.clone(), shown);
                default
            }
        }
    }

    /// A duration in `range`, or the default.
    fn duration(
        &mut self,
        given: &Option<Given<Duration>>,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        let Some(Given { value, place }) = given else { return default };
        if range.contains(value) {
            return *value;
        }
        let shown = |duration: &Duration| humantime::format_duration(*duration).to_string();
        self.refuse(place.clone(), out_of(shown(range.start()), shown(range.end()), shown(value)));
        default
    }

    fn refuse(&mut self, place: Place, message: String) {
        self.problems.push(place.problem(message));
    }
}

fn api(raw: &RawApi) -> Api {
    Api { key: secret(&raw.key) }
}

fn out_of(min: impl Display, max: impl Display, got: impl Display) -> String {
    format!("must be between {min} and {max}, got {got}")
}

fn given_or<T: Clone>(given: &Option<Given<T>>, default: T) -> T {
    given.as_ref().map_or(default, |given| given.value.clone())
}

/// An empty secret is none: it is what an example file holds.
fn secret(given: &Option<Given<Secret>>) -> Option<Secret> {
    given.as_ref().map(|given| given.value.clone()).filter(|secret| !secret.expose().is_empty())
}

fn text(given: &Option<Given<String>>) -> Option<String> {
    given.as_ref().map(|given| given.value.clone()).filter(|text| !text.is_empty())
}

/// Where a key was given, or that it was not.
fn place<T>(given: &Option<Given<T>>, key: &str) -> Place {
    match given {
        Some(given) => given.place.clone(),
        None => Place { origin: Origin::Default, key: key.to_owned() },
    }
}

/// What keeps a browser's `Origin` header from ever matching this pattern.
fn flaw_of_origin(origin: &str) -> Option<&'static str> {
    if origin.contains('*') && !origin.contains("://") {
        return (!origin.trim_matches('*').is_empty()).then_some("has no scheme");
    }
    match origin.split_once("://") {
        None if origin == "null" => None,
        None => Some("has no scheme"),
        Some(("", _)) => Some("has no scheme"),
        Some((_, "")) => Some("has no host"),
        Some((_, host)) if host.contains('/') => Some("has a path"),
        Some((_, host)) if host.contains(|c: char| c.is_whitespace() || c == '@') => Some("is no host"),
        Some(_) => None,
    }
}
