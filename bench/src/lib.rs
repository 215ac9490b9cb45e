//! A load generator for servers that speak the protocol: ours, and others.
//!
//! A few threads hold all connections. Messages carry the time they were due, so a server that is
//! late is measured as late, also by the messages that had to wait because of it. Every listener
//! checks the offsets of its room. Knows nothing of the server's inside: it is a client.

mod clients;
mod clock;
pub mod command;
mod connection;
mod control;
mod dialect;
mod driver;
mod error;
mod html;
mod listener;
mod options;
mod payload;
mod plan;
mod process;
mod publisher;
mod recorder;
mod report;
mod run;
mod samples;
mod sequence;
mod socket;
mod spawned;
mod storm;
mod tally;
mod threads;
mod websocket;

pub use dialect::DialectName;
pub use error::BenchError;
pub use html::page;
pub use options::BenchArgs;
pub use plan::{Group, Pace, Plan, SCENARIOS, SIZE_MIN, Scenario, WINDOW_MAX};
pub use report::{GroupReport, Percentiles, Report, Second, ServerReport, StormReport};
pub use run::{Progress, Subject, run};
