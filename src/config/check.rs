//! Rules between settings, and legal settings that deserve a warning.
//!
//! The check goes on after a problem, with a legal value in place of the wrong one, so that an
//! operator sees all problems at once.

use super::database_url::DatabaseUrl;
use super::error::Problem;
use super::namespaces::DIRECT_NAMESPACE;
use super::root::{Config, Mode, RawConfig};
use super::secret::Secret;
use super::sections::Namespace;
use super::setting::{Problems, location};
use super::text::host_of_origin;

/// Commit lanes on PostgreSQL, which commits in parallel, when nobody asks for another number.
const POSTGRES_LANES: usize = 4;
/// Bytes of a command besides the payload: channel, tags, and the command itself.
const ENVELOPE_BYTES: usize = 4 * 1024;
/// A shorter key can be guessed by trying, offline once somebody has seen one token; and HS256 wants no shorter
/// one (RFC 7518 §3.2).
const SECRET_BYTES_MIN: usize = 32;

/// The result of a check; the configuration is only to be used when there are no problems.
pub(super) struct Checked {
    pub(super) config: Config,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
}

/// Checks everything.
pub(super) fn check(raw: &RawConfig) -> Checked {
    let mut problems = Problems::default();
    let mut config = raw.checked(&mut problems);
    resolve_workers(&mut config);
    resolve_commit_lanes(raw, &mut config, &mut problems);
    check_reach(raw, &config, &mut problems);
    check_open(raw, &config, &mut problems);
    check_secrets(raw, &config, &mut problems);
    check_pong(raw, &config, &mut problems);
    check_thresholds(raw, &config, &mut problems);
    check_proxies(raw, &config, &mut problems);
    for namespace in config.namespaces.iter() {
        check_message_size(raw, &config, namespace, &mut problems);
    }
    let Problems(problems) = problems;
    if problems.is_empty() {
        assert_legal(&config);
    }
    Checked { warnings: warnings(&config), config, problems }
}

/// States what the rest of the program may rely on.
fn assert_legal(config: &Config) {
    let Config { client, database, rooms, namespaces, .. } = config;
    debug_assert!(config.workers >= 1, "no worker");
    debug_assert!(config.mode() != Mode::Open || is_loopback(config), "open to other machines");
    debug_assert!(
        is_loopback(config) || !is_short(client.token_hmac_secret.as_ref()),
        "a secret that can be guessed"
    );
    debug_assert!(client.pong_timeout < client.ping_interval, "two pings wait for an answer");
    debug_assert!(client.connections_max != Some(0), "no connection may come");
    debug_assert!(!client.proxy_protocol || !client.trusted_proxies.is_empty(), "nobody writes the header");
    debug_assert!(
        client.token_hmac_secret.as_ref().is_none_or(|key| !key.expose().is_empty()),
        "empty secret"
    );
    debug_assert!(database.commit_lanes >= 1, "no commit lane");
    debug_assert!(
        database.commit_lanes == 1 || matches!(database.url, DatabaseUrl::Postgres(_)),
        "SQLite has one writer"
    );
    debug_assert!(rooms.inline_max_listeners < rooms.parallel_min_listeners, "two strategies for one size");
    debug_assert!(namespaces.default.name.is_empty(), "the default namespace has a name");
    debug_assert!(namespaces.named.contains_key(DIRECT_NAMESPACE), "`direct` is missing");
    for (name, namespace) in &namespaces.named {
        debug_assert_eq!(name, &namespace.name, "a namespace under another name");
    }
    for namespace in namespaces.iter() {
        assert_namespace_legal(config, namespace);
    }
}

fn assert_namespace_legal(config: &Config, namespace: &Namespace) {
    let name = &namespace.name;
    debug_assert!(
        namespace.persist || namespace.retention().keeps_all(),
        "{name:?}: retention of what is not stored"
    );
    debug_assert!(
        namespace.message_bytes_max < config.client.message_bytes_max,
        "{name:?}: a legal message fits no frame"
    );
    if name == DIRECT_NAMESPACE {
        debug_assert!(
            namespace.persist && !namespace.auto_create && !namespace.personal,
            "direct was opened"
        );
    }
}

fn resolve_workers(config: &mut Config) {
    if config.workers == 0 {
        config.workers = std::thread::available_parallelism().map_or(1, usize::from);
    }
}

fn resolve_commit_lanes(raw: &RawConfig, config: &mut Config, problems: &mut Problems) {
    let wanted = config.database.commit_lanes;
    config.database.commit_lanes = match &config.database.url {
        DatabaseUrl::Postgres(_) if wanted == 0 => POSTGRES_LANES,
        DatabaseUrl::Postgres(_) => wanted,
        DatabaseUrl::Sqlite(_) => 1,
    };
    if matches!(config.database.url, DatabaseUrl::Sqlite(_)) && wanted > 1 {
        problems.refuse(
            location(raw.database.commit_lanes.as_ref(), "database.commit_lanes"),
            format!("SQLite has one writer, so only 1 is possible, got {wanted}; leave it out"),
        );
    }
}

/// Open mode has no authentication, so it may only bind to loopback.
fn check_reach(raw: &RawConfig, config: &Config, problems: &mut Problems) {
    if config.mode() == Mode::Open && !is_loopback(config) {
        problems.refuse(
            location(raw.server.listen.as_ref(), "listen"),
            format!(
                "{} can be reached from other machines, and anyone there could read and write everything. \
                 Set client.token_hmac_secret (ROOMCAST_CLIENT_TOKEN_HMAC_SECRET) to let in only clients \
                 with a token, or client.insecure = true (--insecure) to let in everyone, or listen on \
                 127.0.0.1",
                config.listen
            ),
        );
    }
}

/// In open mode a web page is kept out by its name alone, and a client of a proxy by what the proxy says.
fn check_open(raw: &RawConfig, config: &Config, problems: &mut Problems) {
    if config.mode() != Mode::Open {
        return;
    }
    let anybody: Vec<&str> = config
        .client
        .allowed_origins
        .iter()
        .map(String::as_str)
        .filter(|origin| is_anybody(origin))
        .collect();
    if !anybody.is_empty() {
        problems.refuse(
            location(raw.client.allowed_origins.as_ref(), "client.allowed_origins"),
            format!(
                "{anybody:?} would let any web page that somebody on this machine visits read and write \
                 everything; name the hosts, or set client.token_hmac_secret"
            ),
        );
    }
    if config.client.proxy_protocol {
        problems.refuse(
            location(raw.client.proxy_protocol.as_ref(), "client.proxy_protocol"),
            "a proxy would let anyone it serves read and write everything; set client.token_hmac_secret"
                .to_owned(),
        );
    }
}

/// True for a pattern that pages of any site match: `null` is the origin of each sandboxed frame.
fn is_anybody(origin: &str) -> bool {
    host_of_origin(origin).is_none_or(|host| host.trim_matches(['*', '.']).is_empty())
}

/// Off loopback anybody may try keys; on loopback a short one is for trying out, and told.
fn check_secrets(raw: &RawConfig, config: &Config, problems: &mut Problems) {
    if is_loopback(config) {
        return;
    }
    let token = location(raw.client.token_hmac_secret.as_ref(), "client.token_hmac_secret");
    let key = location(raw.api.key.as_ref(), "api.key");
    for (location, secret) in [(token, &config.client.token_hmac_secret), (key, &config.api.key)] {
        if is_short(secret.as_ref()) {
            problems.refuse(location, TOO_SHORT.to_owned());
        }
    }
}

fn check_pong(raw: &RawConfig, config: &Config, problems: &mut Problems) {
    let (pong, ping) = (config.client.pong_timeout, config.client.ping_interval);
    if pong < ping {
        return;
    }
    // The setting to blame is the one that was set, not a default that no longer fits.
    let blamed = match &raw.client.pong_timeout {
        None => location(raw.client.ping_interval.as_ref(), "client.ping_interval"),
        given => location(given.as_ref(), "client.pong_timeout"),
    };
    let [pong, ping] = [pong, ping].map(humantime::format_duration);
    problems.refuse(
        blamed,
        format!("client.pong_timeout ({pong}) must be shorter than client.ping_interval ({ping})"),
    );
}

fn check_thresholds(raw: &RawConfig, config: &Config, problems: &mut Problems) {
    let (inline, parallel) = (config.rooms.inline_max_listeners, config.rooms.parallel_min_listeners);
    if inline < parallel {
        return;
    }
    let blamed = match &raw.rooms.inline_max_listeners {
        None => location(raw.rooms.parallel_min_listeners.as_ref(), "rooms.parallel_min_listeners"),
        given => location(given.as_ref(), "rooms.inline_max_listeners"),
    };
    problems.refuse(
        blamed,
        format!(
            "rooms.inline_max_listeners ({inline}) must be less than rooms.parallel_min_listeners ({parallel})"
        ),
    );
}

/// A header that nobody is trusted to write would never be read.
fn check_proxies(raw: &RawConfig, config: &Config, problems: &mut Problems) {
    if config.client.proxy_protocol && config.client.trusted_proxies.is_empty() {
        problems.refuse(
            location(raw.client.proxy_protocol.as_ref(), "client.proxy_protocol"),
            "needs client.trusted_proxies: name the addresses of the proxies that write the header, such as \
             [\"10.0.0.5\"]"
                .to_owned(),
        );
    }
}

/// A message the namespace allows must fit the command that carries it.
fn check_message_size(raw: &RawConfig, config: &Config, namespace: &Namespace, problems: &mut Problems) {
    let (frame, message) = (config.client.message_bytes_max, namespace.message_bytes_max);
    if frame >= message.saturating_add(ENVELOPE_BYTES) {
        return;
    }
    let own = raw.namespaces.get(&namespace.name).and_then(|options| options.message_bytes_max.as_ref());
    let blamed = match own {
        Some(given) => given.location.clone(),
        None => location(raw.client.message_bytes_max.as_ref(), "client.message_bytes_max"),
    };
    problems.refuse(
        blamed,
        format!(
            "client.message_bytes_max ({frame}) must be at least {ENVELOPE_BYTES} more than \
             {}.message_bytes_max ({message})",
            namespace.section()
        ),
    );
}

fn warnings(config: &Config) -> Vec<String> {
    let client = &config.client;
    let mut warnings = Vec::new();
    let secrets = [("client.token_hmac_secret", &client.token_hmac_secret), ("api.key", &config.api.key)];
    let short = secrets.into_iter().filter(|(_, secret)| is_short(secret.as_ref()));
    warnings.extend(short.map(|(key, _)| format!("{key} {TOO_SHORT}")));
    if config.mode() == Mode::Insecure {
        warnings.push(insecure(config));
    }
    if client.token_hmac_secret.is_none() {
        let ineffective = [
            ("client.token_audience", client.token_audience.is_some()),
            ("client.token_issuer", client.token_issuer.is_some()),
            ("client.allow_anonymous", client.allow_anonymous),
        ];
        let set = ineffective.into_iter().filter(|(_, set)| *set);
        warnings.extend(set.map(|(key, _)| format!("{key} has no effect without client.token_hmac_secret")));
    }
    warnings
}

/// What `insecure` means here. Who may call themselves as they like reads the direct rooms of everybody.
fn insecure(config: &Config) -> String {
    let who = match is_loopback(config) {
        true => "anyone on this machine, or behind a proxy on it,".to_owned(),
        false => format!("{} can be reached from other machines: anyone there", config.listen),
    };
    let what = match config.client.token_hmac_secret {
        None => "can take the name of any user, and read and write every room, the direct ones too",
        Some(_) => "can read and write every room except the direct ones; only a token gives a user's name",
    };
    format!("client.insecure is true, and {who} {what}")
}

/// White space around it makes no secret longer.
fn is_short(secret: Option<&Secret>) -> bool {
    secret.is_some_and(|secret| secret.expose().trim().len() < SECRET_BYTES_MIN)
}

const TOO_SHORT: &str =
    "is shorter than 32 bytes and can be guessed; `openssl rand -hex 32` makes a good one";

/// Also for IPv4 addresses written as IPv6.
fn is_loopback(config: &Config) -> bool {
    config.listen.ip().to_canonical().is_loopback()
}
