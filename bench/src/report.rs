//! What came out of a run: numbers for programs, a table for people.

use std::fmt::{self, Write};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::dialect::DialectName;
use crate::plan::{Group, Pace};

/// The advice when a server limits its clients.
const LIMITED: &str = "error 111: the limits of the server were measured; set user_publishes_per_second_max, \
                       user_bytes_per_second_max, user_new_rooms_per_minute_max, room_publishes_per_second_max and \
                       room_bytes_per_second_max to 0 in its [limits], or lower the load";
const LIMITED_FAULT: &str =
    "the server refused messages with error 111, so its limits were measured; see the report";

/// A whole run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Version of the load generator.
    pub version: &'static str,
    /// Name of the scenario, or `custom`.
    pub scenario: String,
    /// Protocol of the server.
    pub dialect: DialectName,
    /// Where the server listens.
    pub address: String,
    /// Connections that were made.
    pub connections: usize,
    /// Connections that failed or were ended by the server.
    pub broken: u64,
    /// What the first of them met.
    pub breakage: Option<String>,
    /// Measured time in seconds.
    pub seconds: f64,
    /// Seconds until every connection was ready.
    pub ramp_seconds: f64,
    /// By group of rooms.
    pub groups: Vec<GroupReport>,
    /// What the server used; `None` when its process is not known.
    pub server: Option<ServerReport>,
    /// Processor time of the load generator, as a share of one core.
    pub own_cpu: f64,
    /// Processor time of its busiest thread, as a share of the measured time.
    pub own_busiest: f64,
    /// Longest time in seconds that a message lay in a listener's socket before it was read.
    pub read_late_seconds: f64,
    /// Threads of the load generator.
    pub own_threads: usize,
    /// The reconnect storm, if there was one.
    pub storm: Option<StormReport>,
    /// For each whole second: acknowledged publishes and arrivals.
    pub timeline: Vec<Second>,
}

/// All listeners vanished at once and came back.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct StormReport {
    /// How many.
    pub connections: usize,
    /// How long they were away, in seconds.
    pub away_seconds: f64,
    /// Seconds from when the first might come back until the last had recovered.
    pub back_seconds: f64,
    /// Pages the server read from its database meanwhile; `None` when it does not tell.
    pub pages_read: Option<u64>,
}

impl StormReport {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, away_seconds, back_seconds, pages_read } = self;
        let pages = pages_read.map_or("unknown".to_owned(), |pages| pages.to_string());
        writeln!(
            f,
            "\nstorm           {connections} listeners were away for {away_seconds:.1} s, the last was back after {back_seconds:.2} s; pages read from the database: {pages}"
        )
    }
}

/// One second of a run.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Second {
    /// Publishes acknowledged.
    pub published: u64,
    /// Publications that arrived.
    pub delivered: u64,
}

/// Rooms of one kind.
#[derive(Debug, Clone, Serialize)]
pub struct GroupReport {
    /// What was asked for.
    pub plan: Group,
    /// Publishes acknowledged, of those due in the measured time.
    pub published: u64,
    /// Publishes acknowledged within the measured time, per second of it.
    pub published_per_second: f64,
    /// Arrivals of the messages that were due in the measured time.
    pub delivered: u64,
    /// Arrivals within the measured time, per second of it.
    pub delivered_per_second: f64,
    /// Publications that listeners got when they came back; they are in no latency.
    pub recovered: u64,
    /// Publishes without an answer, and those that were due and could not even leave. Their latency is taken
    /// to end with the run.
    pub unanswered: u64,
    /// Publishes refused.
    pub refused: u64,
    /// Those of them that met a limit of the server on rates (error 111).
    pub limited: u64,
    /// What the first refusal said.
    pub refusal: Option<String>,
    /// Arrivals that were owed and never came.
    pub lost: u64,
    /// Arrivals of what had arrived before.
    pub repeated: u64,
    /// Arrivals behind a later message of the room.
    pub out_of_order: u64,
    /// From when a publish was due to its ack.
    pub ack: Percentiles,
    /// From when a publish was due to each arrival.
    pub delivery: Percentiles,
    /// From when a publish was due to its arrival at the last listener of the room.
    pub last_delivery: Percentiles,
}

/// What the server used in the measured time.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ServerReport {
    /// Processor time as a share of one core.
    pub cpu: f64,
    /// Microseconds of processor time for each arrival; `None` without arrivals.
    pub cpu_us_per_delivery: Option<f64>,
    /// Microseconds of processor time for each publish.
    pub cpu_us_per_publish: Option<f64>,
    /// Resident memory after all connections were made, in bytes.
    pub resident: u64,
    /// The same at the end of the measured time.
    pub resident_at_end: u64,
    /// What a connection added to it, in bytes.
    pub resident_per_connection: f64,
    /// Threads a connection added.
    pub threads_per_connection: f64,
}

/// A latency distribution, in microseconds.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Percentiles {
    /// Values.
    pub count: u64,
    /// Half are faster.
    pub p50: u64,
    /// Nine in ten are faster.
    pub p90: u64,
    /// 99 in a hundred are faster.
    pub p99: u64,
    /// 999 in a thousand are faster.
    pub p999: u64,
    /// The slowest.
    pub max: u64,
    /// For plots: latency at 1 − 10^(−n/10), n = 0, 1, ….
    pub curve: Vec<u64>,
}

/// From here on sockets that are not read may hold up the server.
const READ_LATE_MAX_S: f64 = 1.0;

/// Points of [`Percentiles::curve`]: up to five nines.
const CURVE_POINTS: i32 = 51;

impl Percentiles {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let share = |point: i32| 1.0 - 10_f64.powf(-f64::from(point) / 10.0);
        Self {
            count: histogram.len(),
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
            curve: (0..CURVE_POINTS).map(|point| histogram.value_at_quantile(share(point))).collect(),
        }
    }

    fn cells(&self) -> [String; 5] {
        [self.p50, self.p90, self.p99, self.p999, self.max]
            .map(|us| if self.count == 0 { "-".to_owned() } else { milliseconds(us) })
    }
}

fn milliseconds(us: u64) -> String {
    let ms = us as f64 / 1000.0;
    if ms < 10.0 {
        format!("{ms:.2}")
    } else if ms < 100.0 {
        format!("{ms:.1}")
    } else {
        format!("{ms:.0}")
    }
}

impl Report {
    /// Nothing was lost, repeated, out of order, refused, left without an answer, or broken off.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let clean = |group: &GroupReport| {
            let faults = [group.lost, group.repeated, group.out_of_order, group.refused, group.unanswered];
            faults.iter().all(|count| *count == 0)
        };
        self.broken == 0 && self.groups.iter().all(clean)
    }

    /// The reason for which the program should fail although there is a report; `None` when all was as it should be.
    #[must_use]
    pub fn fault(&self) -> Option<&'static str> {
        let is_limited = self.groups.iter().any(|group| group.limited > 0);
        match self.is_clean() {
            true => None,
            false if is_limited => Some(LIMITED_FAULT),
            false => Some("messages or connections failed; see the report"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = Duration::from_secs_f64(self.ramp_seconds);
        writeln!(
            f,
            "{} at {}: {} connections in {seconds:.1?}, {:.1} s measured",
            self.scenario, self.address, self.connections, self.seconds
        )?;
        for group in &self.groups {
            group.write(f)?;
        }
        if let Some(server) = &self.server {
            server.write(f)?;
        }
        if let Some(storm) = &self.storm {
            storm.write(f)?;
        }
        writeln!(
            f,
            "\nload generator  {:.0} % of a core, {} threads, the busiest {:.0} %",
            self.own_cpu * 100.0,
            self.own_threads,
            self.own_busiest * 100.0
        )?;
        if self.own_busiest > 0.9 {
            writeln!(f, "  it was the bottleneck: raise --threads, use another machine, or lower the load")?;
        } else if self.read_late_seconds > READ_LATE_MAX_S {
            let late = self.read_late_seconds;
            writeln!(
                f,
                "  it read up to {late:.1} s late, because the server occupied the processor; use another machine, or lower the load"
            )?;
        }
        if let Some(breakage) = &self.breakage {
            writeln!(f, "{} connections broke; the first error: {breakage}", self.broken)?;
        }
        Ok(())
    }
}

impl GroupReport {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Group { name, rooms, listeners, publishers, publishers_listen, pace, size } = &self.plan;
        let among = if *publishers_listen { " among them" } else { "" };
        let pace = match pace {
            Pace::Rate(rate) => format!("{rate} messages/s"),
            Pace::Window(window) => format!("{window} in flight each"),
        };
        writeln!(
            f,
            "\n{name}: {rooms} rooms, {listeners} listeners, {publishers} publishers{among}, {pace}, {size} bytes"
        )?;
        writeln!(f, "  published     {:>12} ({:.0}/s)", self.published, self.published_per_second)?;
        writeln!(f, "  delivered     {:>12} ({:.0}/s)", self.delivered, self.delivered_per_second)?;
        if self.recovered > 0 {
            writeln!(
                f,
                "  recovered     {:>12}   by listeners that reconnected; not in the latencies",
                self.recovered
            )?;
        }
        writeln!(
            f,
            "  lost          {:>12}   repeated {}   out of order {}",
            self.lost, self.repeated, self.out_of_order
        )?;
        if self.unanswered > 0 {
            writeln!(
                f,
                "  unanswered    {:>12}   their latency counts until the end of the run",
                self.unanswered
            )?;
        }
        if let Some(refusal) = &self.refusal {
            writeln!(f, "  refused       {:>12}   the first error: {refusal}", self.refused)?;
        }
        if self.limited > 0 {
            writeln!(f, "  limited       {:>12}   {LIMITED}", self.limited)?;
        }
        writeln!(f, "  latency, ms       p50      p90      p99    p99.9      max")?;
        for (name, latency) in
            [("ack", &self.ack), ("delivery", &self.delivery), ("last delivery", &self.last_delivery)]
        {
            let mut line = format!("  {name:<13}");
            for cell in latency.cells() {
                let _ = write!(line, " {cell:>8}");
            }
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

impl ServerReport {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3} us"));
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        writeln!(
            f,
            "\nserver          {:.0} % of a core, {} per delivery, {} per publish",
            self.cpu * 100.0,
            us(self.cpu_us_per_delivery),
            us(self.cpu_us_per_publish)
        )?;
        writeln!(
            f,
            "  memory        {:.1} MiB connected, {:.1} MiB at the end; {:.1} KiB and {:.2} threads a connection",
            mib(self.resident),
            mib(self.resident_at_end),
            self.resident_per_connection / 1024.0,
            self.threads_per_connection
        )
    }
}
