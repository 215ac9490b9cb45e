//! Writes a configuration as TOML that reads back as the same one, except that secrets are left out.

use std::fmt::Write;
use std::time::Duration;

use super::{Config, Durability, Namespace, Secret};

impl Config {
    /// The whole configuration as TOML, without secrets and without the password of a database URL.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut page = Page(String::new());
        page.text("listen", &self.listen.to_string());
        page.plain("workers", self.workers);
        page.duration("shutdown_grace", self.shutdown_grace);
        self.write_database(&mut page);
        self.write_client(&mut page);
        page.section("api");
        page.secret("key", self.api.key.as_ref());
        page.section("rooms");
        page.duration("idle_timeout", self.rooms.idle_timeout);
        page.plain("inline_max_listeners", self.rooms.inline_max_listeners);
        page.duration("inline_max_cost", self.rooms.inline_max_cost);
        page.plain("parallel_min_listeners", self.rooms.parallel_min_listeners);
        page.duration("parallel_min_cost", self.rooms.parallel_min_cost);
        page.plain("catch_up_workers", self.rooms.catch_up_workers);
        page.section("log");
        page.text("filter", &self.log.filter);
        page.plain("json", self.log.json);
        for namespace in self.namespaces.iter() {
            write_namespace(&mut page, namespace);
        }
        page.0
    }

    fn write_database(&self, page: &mut Page) {
        let database = &self.database;
        page.section("database");
        page.text("url", &database.url.to_string());
        page.text("durability", database.durability.name());
        page.plain("read_connections", database.read_connections);
        page.plain("commit_lanes", database.commit_lanes);
        page.plain("batch_rows_max", database.batch_rows_max);
        page.plain("batch_bytes_max", database.batch_bytes_max);
    }

    fn write_client(&self, page: &mut Page) {
        let client = &self.client;
        page.section("client");
        page.plain("insecure", client.insecure);
        page.secret("token_hmac_secret", client.token_hmac_secret.as_ref());
        page.text("token_audience", client.token_audience.as_deref().unwrap_or_default());
        page.text("token_issuer", client.token_issuer.as_deref().unwrap_or_default());
        page.plain("allow_anonymous", client.allow_anonymous);
        let origins: Vec<String> = client.allowed_origins.iter().map(|origin| quoted(origin)).collect();
        page.plain("allowed_origins", format!("[{}]", origins.join(", ")));
        page.duration("ping_interval", client.ping_interval);
        page.duration("pong_timeout", client.pong_timeout);
        page.duration("connect_timeout", client.connect_timeout);
        page.duration("expired_close_delay", client.expired_close_delay);
        page.plain("channels_max", client.channels_max);
        page.plain("message_bytes_max", client.message_bytes_max);
        page.plain("outbox_bytes_max", client.outbox_bytes_max);
        page.duration("stall_timeout", client.stall_timeout);
        page.plain("commands_per_second_max", client.commands_per_second_max);
        page.plain("connections_max", client.connections_max.unwrap_or(0));
    }
}

impl Durability {
    /// As written in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Normal => "normal",
        }
    }
}

fn write_namespace(page: &mut Page, namespace: &Namespace) {
    match namespace.name.as_str() {
        "" => page.section("default_namespace"),
        name => page.section(&format!("namespace.{name}")),
    }
    page.plain("persist", namespace.persist);
    if namespace.persist {
        page.plain("history_size", namespace.history_size);
        page.duration("history_ttl", namespace.history_ttl.unwrap_or_default());
    }
    page.plain("presence", namespace.presence);
    page.plain("join_leave", namespace.join_leave);
    page.plain("join_leave_max_listeners", namespace.join_leave_max_listeners);
    page.plain("presence_max_listeners", namespace.presence_max_listeners);
    page.plain("personal", namespace.personal);
    page.plain("token_required", namespace.token_required);
    page.plain("auto_create", namespace.auto_create);
    page.text("subscribe", namespace.subscribe.name());
    page.text("publish", namespace.publish.name());
    page.text("read_presence", namespace.read_presence.name());
    page.text("read_history", namespace.read_history.name());
    page.text("strategy", namespace.strategy.name());
    page.plain("message_bytes_max", namespace.message_bytes_max);
}

/// TOML being written.
struct Page(String);

impl Page {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String does not fail.
        let _ = self.0.write_fmt(line);
        self.0.push('\n');
    }

    fn section(&mut self, name: &str) {
        self.line(format_args!("\n[{name}]"));
    }

    fn plain(&mut self, key: &str, value: impl std::fmt::Display) {
        self.line(format_args!("{key} = {value}"));
    }

    fn text(&mut self, key: &str, value: &str) {
        self.plain(key, quoted(value));
    }

    fn duration(&mut self, key: &str, value: Duration) {
        self.text(key, &humantime::format_duration(value).to_string());
    }

    /// A comment and not a value, so that no shown placeholder can be taken for a secret.
    fn secret(&mut self, key: &str, secret: Option<&Secret>) {
        match secret {
            Some(_) => self.line(format_args!("# {key} is set and not shown")),
            None => self.text(key, ""),
        }
    }
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
