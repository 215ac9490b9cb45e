//! `roomcast serve`: configuration, logging, the start block, and then the server.

use std::fmt::Write;
use std::net::SocketAddr;

use clap::Args;

use super::failure::Failure;
use super::logging::Logging;
use super::signals::StopSignals;
use super::sources::ConfigFile;
use crate::config::{Config, DatabaseUrl, Flag, Mode};
use crate::net::Capacity;
use crate::server::Server;

const EXAMPLES: &str = "\
Examples:
  roomcast serve
        open to everybody on this machine, messages in ./roomcast.db
  roomcast serve --database postgres://chat:secret@localhost/chat
        the same on PostgreSQL; tables are created at the first start
  ROOMCAST_CLIENT_TOKEN_HMAC_SECRET=… roomcast serve --listen 0.0.0.0:8000
        open to everybody with a token signed with that secret
  roomcast serve --config roomcast.toml
        all settings from a file; roomcast.example.toml shows them with their defaults

Flags override ROOMCAST_… variables, which override the file. SIGTERM or Ctrl-C stops the server
gracefully; a second one stops it at once.";

/// Start the server.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ServeArgs {
    /// Source of the configuration.
    #[command(flatten)]
    pub file: ConfigFile,
    /// Address and port to listen on [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Database for messages: sqlite:FILE or postgres://… [default: sqlite:roomcast.db]
    #[arg(long, value_name = "URL")]
    pub database: Option<String>,
    /// Broadcast workers; 0 = one per core [default: 0]
    #[arg(long, value_name = "N")]
    pub workers: Option<u64>,
    /// Let in anyone who can reach the address, without a token
    #[arg(long)]
    pub insecure: bool,
    /// Log filter, such as info or info,roomcast=debug [default: info]
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// Log one JSON object per line
    #[arg(long)]
    pub log_json: bool,
}

impl ServeArgs {
    /// The settings of the given flags.
    fn flags(&self) -> Vec<Flag> {
        let flag =
            |name, section, key, value: Option<String>| value.map(|value| Flag { name, section, key, value });
        let yes = |given: bool| given.then(|| "true".to_owned());
        [
            flag("--listen", "", "listen", self.listen.clone()),
            flag("--database", "database", "url", self.database.clone()),
            flag("--workers", "", "workers", self.workers.map(|workers| workers.to_string())),
            flag("--insecure", "client", "insecure", yes(self.insecure)),
            flag("--log", "log", "filter", self.log.clone()),
            flag("--log-json", "log", "json", yes(self.log_json)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Runs the command until the server has stopped.
pub(super) fn run(args: &ServeArgs) -> Result<(), Failure> {
    let (config, logging) = prepare(args)?;
    tracing::debug!(?config, "configuration in effect");
    let signals = StopSignals::listen()?;
    let server = Server::start(config.clone()).map_err(|error| Failure::new(error.to_string()))?;
    logging.count_losses(&server.node().metrics().log_lines_lost_total);
    super::output::announce(banner(&config, server.local_addr(), server.capacity()));
    signals.wait();
    tracing::info!("stopping: sending what is queued, then closing the connections");
    server.stop();
    Ok(())
}

/// Reads the configuration, starts logging, and logs what is doubtful about the configuration.
///
/// # Errors
/// When the configuration is wrong or logging cannot start.
fn prepare(args: &ServeArgs) -> Result<(Config, Logging), Failure> {
    let loaded = args.file.load(args.flags())?;
    let logging = Logging::start(&loaded.config.log)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    Ok((loaded.config, logging))
}

/// The block that tells at the start what is running and how to reach it.
///
/// `address` is the one really bound, `capacity` what the limits of the system and the
/// configuration allow.
#[must_use]
pub(super) fn banner(config: &Config, address: SocketAddr, capacity: Capacity) -> String {
    let host = reachable(address);
    let lines = [
        ("address", address.to_string()),
        ("page", format!("http://{host}/")),
        ("websocket", format!("ws://{host}/connection/websocket")),
        ("database", database(config)),
        ("workers", config.workers.to_string()),
        ("mode", mode(config).to_owned()),
        ("connections", format!("up to {} at once (limit: {})", capacity.connections, capacity.bound)),
    ];
    let mut block = format!("Roomcast {} is running. Ctrl-C stops it.\n\n", env!("CARGO_PKG_VERSION"));
    for (name, value) in lines {
        // Writing to a String does not fail.
        let _ = writeln!(block, "  {name:<12} {value}");
    }
    block.push('\n');
    block
}

/// A host a browser on this machine can open: an address that means "all" is none.
fn reachable(address: SocketAddr) -> String {
    if address.ip().is_unspecified() { format!("localhost:{}", address.port()) } else { address.to_string() }
}

fn database(config: &Config) -> String {
    let kind = match config.database.url {
        DatabaseUrl::Sqlite(_) => "SQLite",
        DatabaseUrl::Postgres(_) => "PostgreSQL",
    };
    format!("{} ({kind}, durability {})", config.database.url, config.database.durability.as_str())
}

fn mode(config: &Config) -> &'static str {
    match config.mode() {
        Mode::Open => {
            "open: everybody on this machine, nobody else; set client.token_hmac_secret to let others in"
        }
        Mode::Insecure => "insecure: everybody who can reach the address, without a token",
        Mode::Secured if config.client.allow_anonymous => "secured: with a token, or anonymously",
        Mode::Secured => "secured: only with a token",
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;
    use crate::config::Sources;

    const CAPACITY: Capacity = Capacity { connections: 1000, bound: "open files" };

    fn config_of(line: &[&str]) -> Config {
        let Command::Serve(args) =
            Cli::try_parse_from([&["roomcast", "serve"], line].concat()).unwrap().command
        else {
            panic!("not serve");
        };
        Sources { flags: args.flags(), ..Sources::default() }.load().unwrap().config
    }

    #[test]
    fn flags_set_their_keys() {
        let config = config_of(&[
            "--listen=0.0.0.0:1",
            "--database=sqlite:x.db",
            "--workers=3",
            "--insecure",
            "--log=warn",
            "--log-json",
        ]);
        assert_eq!(config.listen.to_string(), "0.0.0.0:1");
        assert_eq!(config.database.url.to_string(), "sqlite:x.db");
        assert_eq!((config.workers, config.mode()), (3, Mode::Insecure));
        assert_eq!((config.log.filter.as_str(), config.log.json), ("warn", true));
    }

    #[test]
    fn the_block_tells_how_to_reach_the_server() {
        let block = banner(&config_of(&["--workers=2"]), "127.0.0.1:8000".parse().unwrap(), CAPACITY);
        for part in [
            "http://127.0.0.1:8000/\n",
            "sqlite:roomcast.db (SQLite, durability full)\n",
            "workers      2\n",
            "open: everybody on this machine",
            "up to 1000 at once (limit: open files)",
        ] {
            assert!(block.contains(part), "{block}");
        }
    }

    #[test]
    fn the_block_shows_no_password_and_a_page_that_opens() {
        let config = config_of(&["--database=postgres://ann:hunter2@db/chat", "--insecure"]);
        for address in ["0.0.0.0:80", "[::]:80"] {
            let block = banner(&config, address.parse().unwrap(), CAPACITY);
            assert!(block.contains("http://localhost:80/\n") && !block.contains("hunter2"), "{block}");
        }
    }
}
