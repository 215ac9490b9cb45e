//! What must hold between several keys, and what is legal but deserves a warning.

use super::super::raw::{Given, RawConfig};
use super::super::{Config, Mode, Namespace, Secret};
use super::{Checker, place};

/// Room for the channel, tags and the command around the payload of a message.
const ENVELOPE_BYTES: usize = 4 * 1024;
/// A key shorter than this can be guessed by trying.
const SECRET_BYTES_MIN: usize = 16;

impl Checker {
    pub(super) fn check_relations(&mut self, raw: &RawConfig, config: &Config) {
        self.check_reach(raw, config);
        self.check_pong(raw, config);
        self.check_thresholds(raw, config);
        for namespace in config.namespaces.iter() {
            self.check_message_size(raw, config, namespace);
        }
    }

    /// Without a secret nobody is asked who he is, so nobody from elsewhere may come.
    fn check_reach(&mut self, raw: &RawConfig, config: &Config) {
        if config.mode() == Mode::Open && !is_loopback(config) {
            self.refuse(
                place(&raw.server.listen, "listen"),
                format!(
                    "{} can be reached from other machines, and anyone there could read and write everything. \
                     Set client.token_hmac_secret (ROOMCAST_CLIENT_TOKEN_HMAC_SECRET) to let in only who has a \
                     token, or client.insecure = true (--insecure) to let in everyone, or listen on 127.0.0.1",
                    config.listen
                ),
            );
        }
    }

    fn check_pong(&mut self, raw: &RawConfig, config: &Config) {
        let (pong, ping) = (config.client.pong_timeout, config.client.ping_interval);
        if pong < ping {
            return;
        }
        // The default that no longer fits is not to blame, but the key that was set.
        let blamed = match &raw.client.pong_timeout {
            None => place(&raw.client.ping_interval, "client.ping_interval"),
            given => place(given, "client.pong_timeout"),
        };
        let shown = |duration| humantime::format_duration(duration).to_string();
        self.refuse(
            blamed,
            format!(
                "client.pong_timeout ({}) must be shorter than client.ping_interval ({})",
                shown(pong),
                shown(ping)
            ),
        );
    }

    fn check_thresholds(&mut self, raw: &RawConfig, config: &Config) {
        let (inline, parallel) = (config.rooms.inline_max_listeners, config.rooms.parallel_min_listeners);
        if inline < parallel {
            return;
        }
        let blamed = match &raw.rooms.inline_max_listeners {
            None => place(&raw.rooms.parallel_min_listeners, "rooms.parallel_min_listeners"),
            given => place(given, "rooms.inline_max_listeners"),
        };
        self.refuse(
            blamed,
            format!(
                "rooms.inline_max_listeners ({inline}) must be less than rooms.parallel_min_listeners ({parallel})"
            ),
        );
    }

    /// A message the namespace allows must fit the command that carries it.
    fn check_message_size(&mut self, raw: &RawConfig, config: &Config, namespace: &Namespace) {
        let (frame, message) = (config.client.message_bytes_max, namespace.message_bytes_max);
        if frame >= message.saturating_add(ENVELOPE_BYTES) {
            return;
        }
        let options = match namespace.name.as_str() {
            "" => Some(&raw.default_namespace),
            name => raw.namespaces.get(name),
        };
        let blamed = match options.and_then(|options| options.message_bytes_max.as_ref()) {
            Some(Given { place, .. }) => place.clone(),
            None => place(&raw.client.message_bytes_max, "client.message_bytes_max"),
        };
        let section = match namespace.name.as_str() {
            "" => "default_namespace".to_owned(),
            name => format!("namespace.{name}"),
        };
        self.refuse(
            blamed,
            format!(
                "client.message_bytes_max ({frame}) must be at least {ENVELOPE_BYTES} more than \
                 {section}.message_bytes_max ({message})"
            ),
        );
    }

    pub(super) fn warn(&mut self, config: &Config) {
        self.warn_about_length("client.token_hmac_secret", config.client.token_hmac_secret.as_ref());
        self.warn_about_length("api.key", config.api.key.as_ref());
        if config.mode() == Mode::Insecure && !is_loopback(config) {
            self.warnings.push(format!(
                "client.insecure is true and {} can be reached from other machines: anyone there can read and \
                 write every room except the direct ones",
                config.listen
            ));
        }
        let client = &config.client;
        if client.token_hmac_secret.is_none() {
            let ineffective = [
                ("client.token_audience", client.token_audience.is_some()),
                ("client.token_issuer", client.token_issuer.is_some()),
                ("client.allow_anonymous", client.allow_anonymous),
            ];
            for (key, _) in ineffective.into_iter().filter(|(_, set)| *set) {
                self.warnings.push(format!("{key} has no effect without client.token_hmac_secret"));
            }
        }
    }

    fn warn_about_length(&mut self, key: &str, secret: Option<&Secret>) {
        if secret.is_some_and(|secret| secret.expose().len() < SECRET_BYTES_MIN) {
            self.warnings.push(format!(
                "{key} is shorter than {SECRET_BYTES_MIN} bytes and can be guessed; \
                 `openssl rand -hex 32` makes a good one"
            ));
        }
    }
}

/// Also for IPv4 addresses written as IPv6.
fn is_loopback(config: &Config) -> bool {
    config.listen.ip().to_canonical().is_loopback()
}
