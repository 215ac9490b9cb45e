//! What the command line asks for.

use std::error::Error;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

/// How publications are timed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// Open loop: so many a second, whatever the server does.
    Rate(f64),
    /// Closed loop: so many in flight, the next when one of them is done.
    Window(usize),
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) dialect: String,
    pub(crate) address: SocketAddr,
    /// The server's process, whose children count too; 0 = it is not looked at.
    pub(crate) pid: u32,
    /// Listeners in all, spread evenly over the rooms.
    pub(crate) connections: usize,
    pub(crate) rooms: usize,
    /// Listeners that publish too, spread evenly over the rooms.
    pub(crate) publishers: usize,
    pub(crate) pace: Pace,
    /// Bytes of a payload.
    pub(crate) size: usize,
    pub(crate) warmup: Duration,
    pub(crate) duration: Duration,
}

pub(crate) const USAGE: &str = "peer-driver --dialect roomcast|plain|socketio|nats|nchan --address IP:PORT \
[--pid PID] [--connections N] [--rooms N] [--publishers N] [--rate PER_SECOND | --window N] [--size BYTES] \
[--warmup SECONDS] [--duration SECONDS]";

impl Options {
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut options = Self {
            dialect: String::new(),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            pid: 0,
            connections: 1000,
            rooms: 1,
            publishers: 1,
            pace: Pace::Rate(100.0),
            size: 128,
            warmup: Duration::from_secs(2),
            duration: Duration::from_secs(10),
        };
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{name} needs a value\n{USAGE}"))?;
            options.set(&name, &value)?;
        }
        options.check()?;
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Box<dyn Error>> {
        match name {
            "--dialect" => value.clone_into(&mut self.dialect),
            "--address" => self.address = number(name, value)?,
            "--pid" => self.pid = number(name, value)?,
            "--connections" => self.connections = number(name, value)?,
            "--rooms" => self.rooms = number(name, value)?,
            "--publishers" => self.publishers = number(name, value)?,
            "--rate" => self.pace = Pace::Rate(number(name, value)?),
            "--window" => self.pace = Pace::Window(number(name, value)?),
            "--size" => self.size = number(name, value)?,
            "--warmup" => self.warmup = seconds(name, value)?,
            "--duration" => self.duration = seconds(name, value)?,
            _ => return Err(format!("{name}: no such option\n{USAGE}").into()),
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Box<dyn Error>> {
        if !self.address.ip().is_loopback() || self.address.port() == 0 {
            return Err("--address must be a loopback address with a port: load is not sent elsewhere".into());
        }
        if self.rooms == 0 || self.publishers == 0 || self.rooms > self.connections {
            return Err("at least one room, one publisher and one listener for each room are needed".into());
        }
        if self.publishers > self.connections || self.publishers > 99_999 {
            return Err("publishers are listeners, and 99999 at most".into());
        }
        match self.pace {
            Pace::Rate(rate) if !rate.is_finite() || rate <= 0.0 => Err("--rate must be above 0".into()),
            Pace::Window(0) => Err("--window must be above 0".into()),
            _ => Ok(()),
        }
    }
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{name} {value}: not understood"))
}

fn seconds(name: &str, value: &str) -> Result<Duration, String> {
    Duration::try_from_secs_f64(number(name, value)?).map_err(|error| format!("{name} {value}: {error}"))
}
