//! `roomcast bench`: what to run from the command line, a bar while it runs, a report at the end.

use std::fs;
use std::io::IsTerminal;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::dialect::DialectName;
use crate::plan::{Group, Pace, Plan, SCENARIOS, SIZE_MIN, Scenario, WINDOW_MAX};
use crate::report::Report;
use crate::{BenchError, Progress, Subject, html};

/// Messages per second beyond any server; a publisher holds what is due in memory.
const RATE_MAX: f64 = 10_000_000.0;

const EXAMPLES: &str = "\
Examples:
  roomcast bench --spawn --scenario room
        start a server on a database of its own, measure one room of 1,000 listeners, stop it
  roomcast bench --connections 5000 --rooms 50 --publishers 4 --rate 200
        5,000 listeners in 50 rooms of the server on 127.0.0.1:8000, 200 messages/s together
  roomcast bench ws://chat.example.com/connection/websocket --token … --publishers 2 --window 16
        another server, as fast as it acknowledges
  roomcast bench --list
        the scenarios that have names

A message counts from when it was due, so a server that falls behind shows it. Exit code 1 when a
message was lost, repeated, out of order, refused or not answered, or when a connection broke.";

/// Put load on a server and measure it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct BenchArgs {
    /// The server's WebSocket
    #[arg(value_name = "URL", default_value = "ws://127.0.0.1:8000/connection/websocket")]
    pub url: String,
    /// A scenario with a name; --list shows them
    #[arg(long, value_name = "NAME")]
    pub scenario: Option<String>,
    /// List the scenarios
    #[arg(long)]
    pub list: bool,
    /// Connections that listen [default: 1000]
    #[arg(long, value_name = "N")]
    pub connections: Option<usize>,
    /// Rooms they are spread over [default: 1]
    #[arg(long, value_name = "N")]
    pub rooms: Option<usize>,
    /// Connections that publish [default: 1]
    #[arg(long, value_name = "N")]
    pub publishers: Option<usize>,
    /// Messages per second, all publishers together [default: 100]
    #[arg(long, value_name = "N", conflicts_with = "window")]
    pub rate: Option<f64>,
    /// Messages each publisher has under way, instead of a rate
    #[arg(long, value_name = "N")]
    pub window: Option<usize>,
    /// Payload in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub size: usize,
    /// Time that is measured
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// Time before it that is not
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    pub warmup: Duration,
    /// Cut all listeners off for so long, a quarter into the run, and let them come back
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub away: Option<Duration>,
    /// Connections made per second
    #[arg(long, value_name = "N", default_value_t = 5000.0)]
    pub ramp: f64,
    /// Threads that listen, to each group of rooms; with a rate, one more publishes
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub threads: usize,
    /// Namespace of the rooms, if not the default one
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Connection token of every client
    #[arg(long, value_name = "TOKEN", env = "ROOMCAST_BENCH_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Process id of a server on this machine, to report what it uses
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// Start `roomcast serve` for the run, on a free port and a database of its own
    #[arg(long, conflicts_with = "server_pid")]
    pub spawn: bool,
    /// The database of the server that is started
    #[arg(long, value_name = "URL", requires = "spawn")]
    pub database: Option<String>,
    /// The configuration file of the server that is started
    #[arg(long, value_name = "FILE", requires = "spawn")]
    pub config: Option<PathBuf>,
    /// Print the report as one line of JSON
    #[arg(long)]
    pub json: bool,
    /// Also write the report with plots as a page
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// What a command prints, and whether all was as it should be.
#[derive(Debug)]
pub struct Output {
    /// For standard output.
    pub text: String,
    /// Why the program should fail although there is a report.
    pub fault: Option<&'static str>,
}

/// Runs the command until there is something to print, or `stopping` is set.
///
/// # Errors
/// When the command line makes no sense, and whatever [`run`](crate::run()) fails of.
pub fn run(args: &BenchArgs, stopping: &AtomicBool) -> Result<Output, BenchError> {
    if args.list {
        return Ok(Output { text: list(), fault: None });
    }
    let (name, plan) = plan(args)?;
    let bar = bar(&plan);
    let total = plan.connections();
    let whole = plan.warmup + plan.duration;
    let outcome = crate::run(&name, plan, &subject(args)?, |progress| {
        show(&bar, progress, total, whole);
        !stopping.load(Ordering::Relaxed)
    });
    bar.finish_and_clear();
    let report = outcome?;
    if let Some(path) = &args.report {
        fs::write(path, html::page(&report))
            .map_err(|error| BenchError::new(format!("{} cannot be written: {error}", path.display())))?;
    }
    let text = if args.json { json(&report)? } else { report.to_string() };
    let fault =
        (!report.is_clean()).then_some("not every message arrived as it should; the report says which");
    Ok(Output { text, fault })
}

fn json(report: &Report) -> Result<String, BenchError> {
    let text = serde_json::to_string(report).map_err(|error| BenchError::new(error.to_string()))?;
    Ok(text + "\n")
}

fn list() -> String {
    SCENARIOS.iter().map(|scenario| format!("{:<15} {}\n", scenario.name, scenario.what)).collect()
}

fn plan(args: &BenchArgs) -> Result<(String, Plan), BenchError> {
    let (address, host, path) = target(&args.url)?;
    check(args)?;
    let (name, groups) = groups(args)?;
    let run = &uuid::Uuid::new_v4().simple().to_string()[..8];
    let prefix = match &args.namespace {
        None => format!("bench-{run}"),
        Some(namespace) => format!("{namespace}:bench-{run}"),
    };
    let plan = Plan {
        address,
        host,
        dialect: DialectName::Centrifuge,
        path,
        token: args.token.clone(),
        prefix,
        groups,
        warmup: args.warmup,
        duration: args.duration,
        ramp: args.ramp,
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
        (args.size >= SIZE_MIN, format!("--size must be at least {SIZE_MIN}: a payload carries the time")),
        (args.ramp > 0.0, "--ramp must be more than 0".to_owned()),
        (
            args.rate.is_none_or(|rate| rate > 0.0 && rate <= RATE_MAX),
            format!("--rate must be more than 0 and at most {RATE_MAX}"),
        ),
        (
            args.away.is_none_or(|away| away < args.duration * 3 / 4),
            "--away must be less than three quarters of --duration: it begins after the first one".to_owned(),
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

/// The groups of the scenario, or those the flags describe; flags change a scenario of one group.
fn groups(args: &BenchArgs) -> Result<(String, Vec<Group>), BenchError> {
    let (name, mut groups) = match &args.scenario {
        None => ("custom".to_owned(), vec![custom(args.size)]),
        Some(name) => {
            let known = || SCENARIOS.iter().map(|scenario| scenario.name).collect::<Vec<_>>().join(", ");
            let scenario = Scenario::named(name).ok_or_else(|| {
                BenchError::new(format!("there is no scenario {name:?}; there are {}", known()))
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
            let wrong = format!("the scenario {name} has several groups of rooms, which flags do not change");
            return Err(BenchError::new(wrong));
        }
        _ => {}
    }
    Ok((name, groups))
}

fn custom(size: usize) -> Group {
    Group {
        name: "rooms".to_owned(),
        rooms: 1,
        listeners: 1000,
        publishers: 1,
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
        Some(("wss" | "https", _)) => return Err(wrong("asks for TLS, which is not spoken here")),
        Some(_) => return Err(wrong("is no WebSocket address")),
        None => url,
    };
    let (host, path) = match rest.find('/') {
        Some(at) => (&rest[..at], &rest[at..]),
        None => (rest, "/connection/websocket"),
    };
    let path = if path == "/" { "/connection/websocket" } else { path };
    let with_port = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let address =
        with_port.to_socket_addrs().map_err(|error| wrong(&format!("is not found ({error})")))?.next();
    Ok((address.ok_or_else(|| wrong("has no address"))?, host.to_owned(), path.to_owned()))
}

fn subject(args: &BenchArgs) -> Result<Subject, BenchError> {
    if !args.spawn {
        return Ok(Subject::Running(args.server_pid));
    }
    let program = std::env::current_exe()
        .map_err(|error| BenchError::new(format!("the own program is not found: {error}")))?;
    let extra = match &args.config {
        Some(config) => vec!["--config".to_owned(), config.display().to_string()],
        None => Vec::new(),
    };
    Ok(Subject::Spawn { program, database: args.database.clone(), extra })
}

fn bar(plan: &Plan) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(plan.connections() as u64), target);
    match ProgressStyle::with_template("{bar:30} {msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn show(bar: &ProgressBar, progress: Progress, connections: usize, whole: Duration) {
    match progress {
        Progress::Connecting(ready) => {
            bar.set_length(connections as u64);
            bar.set_position(ready as u64);
            bar.set_message(format!("{ready} of {connections} connections"));
        }
        Progress::Running(elapsed, published, delivered) => {
            bar.set_length(whole.as_millis() as u64);
            bar.set_position(elapsed.as_millis() as u64);
            bar.set_message(format!("{published} published, {delivered} delivered"));
        }
        Progress::Draining(left) => bar.set_message(format!("waiting for {left} arrivals")),
    }
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
    fn a_scenario_may_be_made_smaller() {
        let (name, plan) = planned(&["--scenario", "room", "--connections", "5"]).unwrap();
        assert_eq!(
            (name.as_str(), plan.groups[0].listeners, plan.groups[0].pace),
            ("room", 5, Pace::Rate(100.0))
        );
        assert!(planned(&["--scenario", "isolation"]).is_ok());
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_words() {
        for (line, words) in [
            (&["--scenario", "rom"][..], "there are room, pipeline"),
            (&["--scenario", "isolation", "--rate", "5"], "several groups"),
            (&["--size", "10"], "at least 48"),
            (&["--rooms", "0"], "--rooms must be at least 1"),
            (&["--window", "0"], "between 1 and 4096"),
            (&["wss://example.com/"], "TLS"),
            (&["ftp://example.com/"], "no WebSocket address"),
        ] {
            let refusal = planned(line).unwrap_err().to_string();
            assert!(refusal.contains(words), "{line:?}: {refusal}");
        }
    }
}
