//! Every number the server counts about itself, in one concrete struct that is always present.
//!
//! The doc comment of a field is its help text in `GET /metrics`. Hot paths add once per turn or
//! batch, never once per listener.

use prometheus::{
    Counter, Encoder, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

/// Bucket bounds in seconds of every latency histogram: 50 µs to 10 s.
const SECONDS: &[f64] =
    &[5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Bucket bounds of histograms that count things: 1 to 4,096.
const COUNTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0];

/// Declares the metrics struct: `name: kind` or `name: counter_vec["label"]`, help in the doc comment.
macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $name:ident: $kind:ident $([$($argument:expr),+])?,)+) => {
        /// All metrics of one server, registered with one registry and rendered together.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $($(#[doc = $help])+ pub $name: metrics!(@type $kind),)+
        }

        impl Metrics {
            /// A fresh set, all zero.
            ///
            /// # Panics
            /// If two metrics share a name, which the unit test of this module rules out.
            #[must_use]
            pub fn new() -> Self {
                let registry = Registry::new();
                $(
                    let help = concat!($($help),+).trim();
                    let $name = metrics!(@new $kind, concat!("roomcast_", stringify!($name)), help $(, $($argument),+)?);
                    registry.register(Box::new($name.clone())).expect("metric names are unique");
                )+
                Self { registry, $($name),+ }
            }
        }
    };
    (@type counter) => { IntCounter };
    (@type seconds) => { Counter };
    (@type counter_vec) => { IntCounterVec };
    (@type gauge) => { IntGauge };
    (@type gauge_vec) => { IntGaugeVec };
    (@type histogram) => { Histogram };
    (@new counter, $name:expr, $help:expr) => {
        IntCounter::new($name, $help).expect("a valid metric name")
    };
    (@new seconds, $name:expr, $help:expr) => {
        Counter::new($name, $help).expect("a valid metric name")
    };
    (@new gauge, $name:expr, $help:expr) => {
        IntGauge::new($name, $help).expect("a valid metric name")
    };
    (@new gauge_vec, $name:expr, $help:expr, $($label:expr),+) => {
        IntGaugeVec::new(Opts::new($name, $help), &[$($label),+]).expect("a valid metric name")
    };
    (@new counter_vec, $name:expr, $help:expr, $($label:expr),+) => {
        IntCounterVec::new(Opts::new($name, $help), &[$($label),+]).expect("a valid metric name")
    };
    (@new histogram, $name:expr, $help:expr, $buckets:expr) => {
        Histogram::with_opts(HistogramOpts::new($name, $help).buckets($buckets.to_vec())).expect("a valid metric name")
    };
}

metrics! {
    /// Client connections that completed the protocol's connect.
    connections: gauge,
    /// Accepted sockets, whatever they turned out to speak.
    sockets: gauge,
    /// Sockets and upgrades refused because a limit was reached, by the limit.
    sockets_refused_total: counter_vec["limit"],
    /// Bytes kept for connections that have not connected while they wait.
    stranger_bytes: gauge,
    /// Threads that serve connections.
    readers: gauge,
    /// Times that a connection had to wait because all readers waited for something else.
    readers_exhausted_total: counter,
    /// Time in which it had to, as far as it is over.
    readers_exhausted_seconds_total: seconds,
    /// Connections that wait, without a thread, until they may query the database.
    queries_waiting: gauge,
    /// Times that a connection had to wait until it might query the database.
    queries_waited_total: counter,
    /// Commands and requests refused because their connection waited in vain until it might query the database.
    queries_refused_total: counter,
    /// Client connections ended, by close code.
    disconnects_total: counter_vec["code"],
    /// Error replies sent, by code.
    errors_total: counter_vec["code"],
    /// Commands received, by method.
    commands_total: counter_vec["method"],
    /// Commands refused with error 111 because a limit was reached, by the limit.
    limited_total: counter_vec["limit"],
    /// Frames received that break the protocol, by kind.
    bad_input_total: counter_vec["kind"],
    /// Log lines lost because standard error did not take them.
    log_lines_lost_total: counter,
    /// HTTP requests answered, by status.
    http_requests_total: counter_vec["status"],
    /// Rooms with state in memory.
    rooms_active: gauge,
    /// Rooms that got state in memory.
    activations_total: counter,
    /// Rooms whose state left memory.
    evictions_total: counter,
    /// Subscriptions, one per connection and room.
    listeners: gauge,
    /// Publications handed to the engine.
    publications_total: counter,
    /// Times that a publication came before one it follows; the missing ones were read back.
    handoff_holes_total: counter,
    /// Rooms in which transactions of the application's that have not been seen to end have messages.
    foreign_pending: gauge,
    /// Panics while a shard was served; its listeners were told to subscribe again.
    shard_panics_total: counter,
    /// Panics while a connection was served; the client was told to come back.
    reader_panics_total: counter,
    /// Publications put into an outbox, once per listener.
    deliveries_total: counter,
    /// Ephemeral publications not given to a listener because its outbox was full.
    dropped_ephemeral_total: counter,
    /// Fan-outs by delivery strategy and why it was chosen.
    fanouts_total: counter_vec["strategy", "reason"],
    /// Commands waiting in shard queues.
    shard_queue_depth: gauge,
    /// Commands a worker applied in one turn.
    shard_turn_commands: histogram[COUNTS],
    /// Memory of what waits in outboxes because their sockets did not take it, in bytes.
    outbox_bytes: gauge,
    /// Connections whose sockets are being waited for.
    outboxes_blocked: gauge,
    /// Connections closed because their socket took no byte for the stall timeout.
    stalled_total: counter,
    /// Subscriptions being served from the log instead of live.
    catch_ups_active: gauge,
    /// Subscriptions that left live delivery to be served from the log.
    catch_ups_total: counter,
    /// Log pages read from the database for resumes and slow listeners.
    catch_up_pages_total: counter,
    /// Log pages for resumes and slow listeners that the page cache already held.
    catch_up_page_hits_total: counter,
    /// Subscribes that wait until the position of their room is read from the database.
    head_lookups_waiting: gauge,
    /// Positions of rooms read from the database because somebody subscribed.
    head_lookups_total: counter,
    /// Subscribes refused with error 111 because too many waited for the position of their room.
    head_lookups_refused_total: counter,
    /// Subscribes that asked to recover, by outcome.
    recoveries_total: counter_vec["outcome"],
    /// Messages in one commit.
    commit_batch_rows: histogram[COUNTS],
    /// Seconds one commit took, from begin to durable.
    commit_seconds: histogram[SECONDS],
    /// Commits that failed as a whole.
    commit_failures_total: counter,
    /// Seconds a message waited in the commit lane before its commit began.
    commit_wait_seconds: histogram[SECONDS],
    /// Messages removed by retention.
    pruned_messages_total: counter,
    /// Bytes of the write-ahead file of a SQLite database.
    store_wal_bytes: gauge,
    /// Times the database held another history than before, after a failover or a restored backup.
    history_forks_total: counter,
    /// 1 while the database answers, 0 while it fails or hangs, by commit lane; reads and changes that are no
    /// messages have their own.
    store_up: gauge_vec["lane"],
    /// Seconds from a command's arrival to its ack being handed to the outbox.
    publish_ack_seconds: histogram[SECONDS],
    /// Seconds from the commit of a fan-out's first publication to its last listener's outbox.
    fanout_seconds: histogram[SECONDS],
}

impl Metrics {
    /// The Prometheus text format.
    #[must_use]
    pub fn render(&self) -> String {
        encode(&self.registry)
    }
}

/// The samples of one room in `GET /metrics?rooms=N`.
#[derive(Debug, Clone)]
pub(crate) struct RoomSample {
    /// The room.
    pub channel: String,
    /// Subscriptions.
    pub listeners: u64,
    /// Subscriptions served from the log.
    pub lagging: u64,
    /// Publications per second.
    pub rate: f64,
    /// Last message or join, in Unix seconds.
    pub last_activity_seconds: f64,
    /// Strategy of the last fan-out; empty when there was none.
    pub strategy: &'static str,
    /// Reason of the choice.
    pub reason: &'static str,
}

/// The rooms in the Prometheus text format, a few series each.
#[must_use]
pub(crate) fn render_rooms(rooms: &[RoomSample]) -> String {
    let registry = Registry::new();
    let gauge = |name: &str, help: &str, labels: &[&str]| {
        let gauge = GaugeVec::new(Opts::new(format!("roomcast_room_{name}"), help), labels);
        let gauge = gauge.expect("a valid metric name");
        registry.register(Box::new(gauge.clone())).expect("metric names are unique");
        gauge
    };
    let room = &["channel"];
    let listeners = gauge("listeners", "Subscriptions of the room.", room);
    let lagging = gauge("lagging", "Subscriptions of the room that are served from the log.", room);
    let rate = gauge("rate", "Publications of the room per second, a mean over about 10 s.", room);
    let activity = gauge("last_activity_seconds", "Unix time of the last message or join.", room);
    let labels = &["channel", "strategy", "reason"];
    let strategy = gauge("strategy", "1 for the strategy of the last fan-out and its reason.", labels);
    for sample in rooms {
        let room = &[sample.channel.as_str()];
        listeners.with_label_values(room).set(sample.listeners as f64);
        lagging.with_label_values(room).set(sample.lagging as f64);
        rate.with_label_values(room).set(sample.rate);
        activity.with_label_values(room).set(sample.last_activity_seconds);
        if !sample.strategy.is_empty() {
            strategy.with_label_values(&[room[0], sample.strategy, sample.reason]).set(1.0);
        }
    }
    encode(&registry)
}

fn encode(registry: &Registry) -> String {
    let mut text = Vec::new();
    if let Err(error) = TextEncoder::new().encode(&registry.gather(), &mut text) {
        tracing::warn!(%error, "the metrics could not be encoded");
    }
    String::from_utf8_lossy(&text).into_owned()
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_rendered_with_its_help() {
        let metrics = Metrics::new();
        metrics.disconnects_total.with_label_values(&["3001"]).inc();
        let text = metrics.render();
        assert!(text.contains(
            "# HELP roomcast_connections Client connections that completed the protocol's connect."
        ));
        assert!(text.contains("roomcast_disconnects_total{code=\"3001\"} 1"));
    }
}
