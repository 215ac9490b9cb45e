//! The command line of `roomcast bench`, and the plan it makes.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::dialect::DialectName;
use crate::error::BenchError;
use crate::plan::{Group, Pace, Plan, SCENARIOS, SIZE_MIN, Scenario, WINDOW_MAX};

/// Path of Roomcast's WebSocket.
const PATH: &str = "/connection/websocket";

/// Messages per second beyond any server; a publisher holds what is due in memory.
const RATE_MAX: f64 = 10_000_000.0;

const EXAMPLES: &str = "\
Examples:
  roomcast bench --spawn --scenario room
        start a server on a temporary database, measure one room of 1,000 listeners, stop the server
  roomcast bench --connections 5000 --rooms 50 --publishers 4 --rate 200
        5,000 listeners in 50 rooms of the server on 127.0.0.1:8000, 200 messages/s in total
  roomcast bench ws://chat.example.com/connection/websocket --token … --publishers 2 --window 16
        a remote server, as fast as it acknowledges
  roomcast bench --dialect plain 127.0.0.1:9000 --publishers 8 --window 1
        another program on this machine: a minimal chat server where the URL path names the room
  roomcast bench --list
        the predefined scenarios

Latency counts from the time a message was due, so it shows when a server falls behind. The exit code
is 1 when a message was lost, repeated, out of order, refused or not acknowledged, or a connection
broke.

A server that is not in open mode limits its clients (error 111), those without a token by their
address or connection: 100 messages a second each by default. The report then says so. To measure the
server itself, set user_publishes_per_second_max, user_bytes_per_second_max,
user_new_rooms_per_minute_max, room_publishes_per_second_max and room_bytes_per_second_max to 0 in
its [limits].";

/// Options of `roomcast bench`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct BenchArgs {
    /// URL of the server's WebSocket; without a path for dialects that define their own
    #[arg(value_name = "URL", default_value = "ws://127.0.0.1:8000/connection/websocket")]
    pub url: String,
    /// Protocol of the server; other programs' protocols only on loopback addresses
    #[arg(long, value_name = "NAME", value_enum, default_value_t = DialectName::Centrifuge)]
    pub dialect: DialectName,
    /// Predefined scenario; --list shows them
    #[arg(long, value_name = "NAME")]
    pub scenario: Option<String>,
    /// List the predefined scenarios and exit
    #[arg(long)]
    pub list: bool,
    /// Connections that listen [default: 1000]
    #[arg(long, value_name = "N")]
    pub connections: Option<usize>,
    /// Rooms the listeners are spread over [default: 1]
    #[arg(long, value_name = "N")]
    pub rooms: Option<usize>,
    /// Connections that publish [default: 1]
    #[arg(long, value_name = "N")]
    pub publishers: Option<usize>,
    /// Let the first listeners publish, each to the room it listens to, instead of separate connections; a
    /// message is then in flight until its publisher has received its own copy [always on unless --dialect is
    /// centrifuge]
    #[arg(long)]
    pub publishers_listen: bool,
    /// Messages per second, all publishers combined [default: 100]
    #[arg(long, value_name = "N", conflicts_with = "window")]
    pub rate: Option<f64>,
    /// Messages each publisher keeps in flight, instead of a rate
    #[arg(long, value_name = "N")]
    pub window: Option<usize>,
    /// Payload size in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub size: usize,
    /// Measured time
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// Warm-up before the measured time; messages are sent but not measured
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    pub warmup: Duration,
    /// Disconnect all listeners for this long, starting a quarter into the measured time, then reconnect them
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub away: Option<Duration>,
    /// Connections opened per second
    #[arg(long, value_name = "N", default_value_t = 5000.0)]
    pub ramp: f64,
    /// Wait between the last connection and the first message [default: 0s; 1500ms unless --dialect is
    /// centrifuge]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub settle: Option<Duration>,
    /// Threads that listen, per group of rooms; with a rate, one more thread publishes
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub threads: usize,
    /// Namespace of the rooms, instead of the default one
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Connection token for every client
    #[arg(long, value_name = "TOKEN", env = "ROOMCAST_BENCH_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Process id of a server on this machine, to report the CPU time and memory it and its children use
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// Start `roomcast serve` for the run, on a free port and a temporary database
    #[arg(long, conflicts_with = "server_pid")]
    pub spawn: bool,
    /// Database of the server that --spawn starts
    #[arg(long, value_name = "URL", requires = "spawn")]
    pub database: Option<String>,
    /// Configuration file of the server that --spawn starts
    #[arg(long, value_name = "FILE", requires = "spawn")]
    pub config: Option<PathBuf>,
    /// Print the report as one line of JSON
    #[arg(long)]
    pub json: bool,
    /// Also write the report, with plots, to an HTML file
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// Name and plan of a run.
///
/// # Errors
/// When options are invalid, contradict each other, or name no server.
pub(crate) fn plan(args: &BenchArgs) -> Result<(String, Plan), BenchError> {
    let (address, host, path) = target(&args.url)?;
    check(args)?;
    if args.dialect != DialectName::Centrifuge {
        check_foreign(args, address, &path)?;
    }
    let (name, groups) = groups(args)?;
    groups.iter().try_for_each(check_listening)?;
    let run = &uuid::Uuid::new_v4().simple().to_string()[..8];
    let prefix = match &args.namespace {
        None => format!("bench-{run}"),
        Some(namespace) => format!("{namespace}:bench-{run}"),
    };
    let plan = Plan {
        address,
        host,
        dialect: args.dialect,
        path,
        token: args.token.clone(),
        prefix,
        groups,
        warmup: args.warmup,
        duration: args.duration,
        ramp: args.ramp,
        settle: args.settle.unwrap_or_else(|| default_settle(args.dialect)),
        disconnect_for: args
            .away
            .or_else(|| args.scenario.as_deref().and_then(Scenario::named)?.disconnect_for),
        threads: args.threads,
    };
    Ok((name, plan))
}

fn check(args: &BenchArgs) -> Result<(), BenchError> {
    let at_least_one = |value: Option<usize>| value.is_none_or(|value| value > 0);
    let rules = [
        (
            args.size >= SIZE_MIN,
            format!("--size must be at least {SIZE_MIN}: a payload carries its send time"),
        ),
        (args.ramp > 0.0, "--ramp must be more than 0".to_owned()),
        (
            args.rate.is_none_or(|rate| rate > 0.0 && rate <= RATE_MAX),
            format!("--rate must be more than 0 and at most {RATE_MAX}"),
        ),
        (
            args.away.is_none_or(|away| away < args.duration * 3 / 4),
            "--away must be less than three quarters of --duration: it starts after the first quarter"
                .to_owned(),
        ),
        (
            args.away.is_none() || !args.publishers_listen,
            "--away disconnects listeners and cannot be combined with --publishers-listen".to_owned(),
        ),
        (args.threads > 0, "--threads must be at least 1".to_owned()),
        (!args.duration.is_zero(), "--duration must be more than 0s".to_owned()),
        (at_least_one(args.rooms), "--rooms must be at least 1".to_owned()),
        (at_least_one(args.publishers), "--publishers must be at least 1".to_owned()),
        (
            args.window.is_none_or(|window| (1..=WINDOW_MAX).contains(&window)),
            format!("--window must be between 1 and {WINDOW_MAX}"),
        ),
    ];
    match rules.into_iter().find(|(holds, _)| !holds) {
        Some((_, wrong)) => Err(BenchError::new(wrong)),
        None => Ok(()),
    }
}

/// Options that do not apply to other programs' protocols.
fn check_foreign(args: &BenchArgs, address: SocketAddr, path: &str) -> Result<(), BenchError> {
    let set = [
        (args.spawn, "--spawn starts Roomcast, which speaks only centrifuge"),
        (args.token.is_some(), "--token is only for centrifuge"),
        (args.namespace.is_some(), "--namespace is only for centrifuge"),
        (!matches!(path, "/" | PATH), "the URL must not have a path: the dialect defines it"),
        (!address.ip().is_loopback(), "only servers on loopback addresses can be measured"),
    ];
    match set.into_iter().find(|(is_set, _)| *is_set) {
        Some((_, wrong)) => Err(BenchError::new(format!("--dialect {}: {wrong}", name_of(args.dialect)))),
        None => Ok(()),
    }
}

/// What publishers that listen need.
fn check_listening(group: &Group) -> Result<(), BenchError> {
    if group.publishers_listen && group.publishers > group.listeners {
        let Group { name, publishers, listeners, .. } = group;
        let wrong = format!("{name}: {publishers} publishers cannot be among {listeners} listeners");
        return Err(BenchError::new(wrong));
    }
    Ok(())
}

/// Time for subscriptions that the server does not confirm.
fn default_settle(dialect: DialectName) -> Duration {
    if dialect == DialectName::Centrifuge { Duration::ZERO } else { Duration::from_millis(1500) }
}

fn name_of(dialect: DialectName) -> String {
    dialect.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// The groups of the scenario, or those the flags describe; flags change a scenario of one group.
fn groups(args: &BenchArgs) -> Result<(String, Vec<Group>), BenchError> {
    let (name, mut groups) = match &args.scenario {
        None => ("custom".to_owned(), vec![custom(args.size)]),
        Some(name) => {
            let known = || SCENARIOS.iter().map(|scenario| scenario.name).collect::<Vec<_>>().join(", ");
            let scenario = Scenario::named(name).ok_or_else(|| {
                BenchError::new(format!("unknown scenario {name:?}; expected one of {}", known()))
            })?;
            (name.clone(), scenario.groups(args.size))
        }
    };
    let pace = args.rate.map(Pace::Rate).or(args.window.map(Pace::Window));
    let changes =
        args.connections.is_some() || args.rooms.is_some() || args.publishers.is_some() || pace.is_some();
    match groups.as_mut_slice() {
        [group] => {
            group.listeners = args.connections.unwrap_or(group.listeners);
            group.rooms = args.rooms.unwrap_or(group.rooms);
            group.publishers = args.publishers.unwrap_or(group.publishers);
            group.pace = pace.unwrap_or(group.pace);
        }
        _ if changes => {
            let wrong = format!(
                "the scenario {name} has several groups of rooms; --connections, --rooms, --publishers, --rate and --window cannot change it"
            );
            return Err(BenchError::new(wrong));
        }
        _ => {}
    }
    for group in &mut groups {
        group.publishers_listen = args.publishers_listen || args.dialect != DialectName::Centrifuge;
    }
    Ok((name, groups))
}

fn custom(size: usize) -> Group {
    Group {
        name: "rooms".to_owned(),
        rooms: 1,
        listeners: 1000,
        publishers: 1,
        publishers_listen: false,
        pace: Pace::Rate(100.0),
        size,
    }
}

/// Address, host and path of a URL.
fn target(url: &str) -> Result<(SocketAddr, String, String), BenchError> {
    let wrong =
        |what: &str| BenchError::new(format!("{url:?} {what}; expected ws://HOST:PORT/connection/websocket"));
    let rest = match url.split_once("://") {
        Some(("ws" | "http", rest)) => rest,
        Some(("wss" | "https", _)) => {
            return Err(wrong("asks for TLS, which the load generator does not support"));
        }
        Some(_) => return Err(wrong("is not a WebSocket URL")),
        None => url,
    };
    let (host, path) = match rest.find('/') {
        Some(at) => (&rest[..at], &rest[at..]),
        None => (rest, PATH),
    };
    let path = if path == "/" { PATH } else { path };
    let with_port = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let address =
        with_port.to_socket_addrs().map_err(|error| wrong(&format!("cannot be resolved ({error})")))?.next();
    Ok((address.ok_or_else(|| wrong("has a host without an address"))?, host.to_owned(), path.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: BenchArgs,
    }

    fn planned(line: &[&str]) -> Result<(String, Plan), BenchError> {
        plan(&Line::try_parse_from([&["roomcast"], line].concat()).unwrap().args)
    }

    #[test]
    fn flags_make_a_plan() {
        let (name, plan) =
            planned(&["127.0.0.1:9", "--connections", "20", "--rooms", "4", "--window", "3"]).unwrap();
        assert_eq!(
            (name.as_str(), plan.address.port(), plan.path.as_str()),
            ("custom", 9, "/connection/websocket")
        );
        let group = &plan.groups[0];
        assert_eq!((group.listeners, group.rooms, group.pace), (20, 4, Pace::Window(3)));
        assert_eq!(plan.connections(), 21);
    }

    #[test]
    fn publishers_listen_where_the_protocol_is_not_ours() {
        let (_, ours) = planned(&["--publishers", "3"]).unwrap();
        let (_, asked) = planned(&["--publishers", "3", "--publishers-listen"]).unwrap();
        let (_, plain) = planned(&["--publishers", "3", "--dialect", "plain", "127.0.0.1:9"]).unwrap();
        assert_eq!([&ours, &asked, &plain].map(Plan::connections), [1003, 1000, 1000]);
        assert_eq!([ours.settle.is_zero(), plain.settle.is_zero()], [true, false]);
        assert_eq!(planned(&["--dialect", "plain"]).unwrap().1.address.port(), 8000);
    }

    #[test]
    fn a_scenario_may_be_made_smaller() {
        let (name, plan) = planned(&["--scenario", "room", "--connections", "5"]).unwrap();
        assert_eq!(
            (name.as_str(), plan.groups[0].listeners, plan.groups[0].pace),
            ("room", 5, Pace::Rate(100.0))
        );
        assert!(planned(&["--scenario", "isolation"]).is_ok());
    }

    #[test]
    fn contradictory_options_are_refused_with_a_reason() {
        for (line, words) in [
            (&["--scenario", "rom"][..], "expected one of room, pipeline"),
            (&["--scenario", "isolation", "--rate", "5"], "several groups"),
            (&["--size", "10"], "at least 48"),
            (&["--rooms", "0"], "--rooms must be at least 1"),
            (&["--window", "0"], "between 1 and 4096"),
            (&["--away", "1s", "--publishers-listen"], "--away disconnects listeners"),
            (
                &["--publishers-listen", "--publishers", "3", "--connections", "2"],
                "3 publishers cannot be among 2",
            ),
            (&["--dialect", "plain", "10.0.0.1:9"], "only servers on loopback addresses"),
            (
                &["--dialect", "nchan", "127.0.0.1:9/chat"],
                "the URL must not have a path: the dialect defines it",
            ),
            (&["--dialect", "plain", "--spawn"], "--spawn starts Roomcast, which speaks only centrifuge"),
            (&["--dialect", "plain", "--token", "t"], "--token is only for"),
            (&["--dialect", "plain", "--namespace", "n"], "--namespace is only for"),
            (&["wss://example.com/"], "TLS"),
            (&["ftp://example.com/"], "not a WebSocket URL"),
        ] {
            let refusal = planned(line).unwrap_err().to_string();
            assert!(refusal.contains(words), "{line:?}: {refusal}");
        }
    }
}
