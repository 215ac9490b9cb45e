//! Puts a chat load on one server, Roomcast or a peer of it, and prints what came of
//! it and what it cost the server as one line of JSON.
//!
//! One thread serves all connections, so what the driver itself needs stays on one
//! core. Every listener's copy of every message is accounted for.

mod connection;
mod dialect;
mod load;
mod options;
mod payload;
mod process;
mod tally;
mod websocket;

use hdrhistogram::Histogram;
use load::{Load, Window};
use options::Options;
use process::Processes;
use serde_json::{Value, json};
use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

/// Files besides the connections: the poller, standard streams, /proc.
const FILES_SPARE: u64 = 64;

fn main() -> ExitCode {
    match run() {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("peer-driver: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<Value, Box<dyn Error>> {
    let options = Options::parse(std::env::args().skip(1))?;
    let files = options.connections as u64 + FILES_SPARE;
    if rlimit::increase_nofile_limit(u64::MAX)? < files {
        return Err(format!("{files} open files are needed and the limit is lower: ulimit -Hn").into());
    }
    let dialect = dialect::of_name(&options.dialect)?;
    let server = Processes::of(options.pid);
    let mut load = Load::new(&options, dialect.as_ref())?;
    let before = server.resident();
    let connected = load.connect()?;
    let after = server.resident();
    load.warm_up()?;
    let window = load.measure(&server)?;
    let mut line = report(&options, &load, &window);
    line["connect_s"] = rounded(connected.as_secs_f64());
    line["rss_idle_kib"] = json!(after);
    line["kib_per_connection"] = rounded(after.saturating_sub(before) as f64 / options.connections as f64);
    Ok(line)
}

fn report(options: &Options, load: &Load<'_>, window: &Window) -> Value {
    let measured = &load.tally.measured;
    let seconds = window.lasted.as_secs_f64();
    let each = |time: Duration| time.as_secs_f64() * 1e6 / measured.deliveries.max(1) as f64;
    json!({
        "dialect": options.dialect,
        "connections": options.connections,
        "rooms": options.rooms,
        "publishers": options.publishers,
        "size": options.size,
        "pace": format!("{:?}", options.pace),
        "seconds": rounded(seconds),
        "published": measured.published,
        "deliveries": measured.deliveries,
        "lost": measured.lost,
        "repeated": measured.repeated,
        "closed": load.closed,
        "refused": load.refused,
        "published_per_s": rounded(measured.published as f64 / seconds),
        "deliveries_per_s": rounded(measured.deliveries as f64 / seconds),
        "server_us_per_delivery": rounded(each(window.server)),
        "server_cores": rounded(window.server.as_secs_f64() / seconds),
        "driver_us_per_delivery": rounded(each(window.driver)),
        "driver_cores": rounded(window.driver.as_secs_f64() / seconds),
        "latency_ms": quantiles(&measured.latency),
        "last_listener_ms": quantiles(&measured.last_listener),
    })
}

fn quantiles(histogram: &Histogram<u64>) -> Value {
    let milliseconds = |quantile| rounded(histogram.value_at_quantile(quantile) as f64 / 1000.0);
    json!({ "p50": milliseconds(0.5), "p99": milliseconds(0.99), "max": rounded(histogram.max() as f64 / 1000.0) })
}

fn rounded(value: f64) -> Value {
    json!((value * 1000.0).round() / 1000.0)
}
