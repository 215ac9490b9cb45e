//! The load: one thread for all connections. They connect a few at a time, then
//! publish for the warm-up and for the measured window, and after each of these all
//! that is under way may arrive, so that the server's time belongs to what is counted.

use crate::connection::{Connection, Scratch};
use crate::dialect::{Dialect, Event};
use crate::options::{Options, Pace};
use crate::payload::{self, Stamp};
use crate::process::Processes;
use crate::tally::Tally;
use mio::{Events, Poll};
use std::error::Error;
use std::io;
use std::time::{Duration, Instant};

/// Connections in the handshake at one time.
const OPENING_MAX: usize = 128;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(120);
/// Time for what is under way to arrive.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Time the server is left alone before its memory is read.
const SETTLE: Duration = Duration::from_millis(1500);
/// Longest wait for the sockets in one go.
const TURN: Duration = Duration::from_millis(50);
/// Refusals that are shown.
const COMPLAINTS_MAX: u64 = 5;

/// What a publisher has got back, to know what it has in flight.
#[derive(Clone, Copy, Default)]
struct Progress {
    sent: u32,
    own: u32,
    acked: u32,
}

pub(crate) struct Load<'a> {
    options: &'a Options,
    dialect: &'a dyn Dialect,
    poll: Poll,
    events: Events,
    connections: Vec<Connection>,
    scratch: Scratch,
    progress: Vec<Progress>,
    data: Vec<u8>,
    started: Instant,
    ready: usize,
    pub(crate) tally: Tally,
    pub(crate) closed: u64,
    pub(crate) refused: u64,
}

/// What a measured window cost.
pub(crate) struct Window {
    pub(crate) lasted: Duration,
    pub(crate) server: Duration,
    pub(crate) driver: Duration,
}

impl<'a> Load<'a> {
    pub(crate) fn new(options: &'a Options, dialect: &'a dyn Dialect) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            options,
            dialect,
            poll: Poll::new()?,
            events: Events::with_capacity(4096),
            connections: Vec::with_capacity(options.connections),
            scratch: Scratch::default(),
            progress: vec![Progress::default(); options.publishers],
            data: Vec::new(),
            started: Instant::now(),
            ready: 0,
            tally: Tally::new(options.connections, options.rooms, options.publishers)?,
            closed: 0,
            refused: 0,
        })
    }

    /// Connects and subscribes everybody, and says how long that took.
    pub(crate) fn connect(&mut self) -> Result<Duration, Box<dyn Error>> {
        let started = Instant::now();
        while self.ready < self.options.connections {
            while self.connections.len() < self.options.connections
                && self.connections.len() - self.ready < OPENING_MAX
            {
                self.open()?;
            }
            self.turn(TURN)?;
            if self.closed > 0 || self.refused > 0 {
                return Err("a listener could not be subscribed".into());
            }
            if started.elapsed() > CONNECT_TIMEOUT {
                return Err(format!("only {} listeners after {CONNECT_TIMEOUT:?}", self.ready).into());
            }
        }
        let lasted = started.elapsed();
        self.idle(SETTLE)?;
        Ok(lasted)
    }

    fn open(&mut self) -> io::Result<()> {
        let number = self.connections.len();
        let room = format!("r{}", number % self.options.rooms);
        let connection =
            Connection::open(number, self.options.address, room, self.dialect, self.poll.registry())?;
        self.connections.push(connection);
        Ok(())
    }

    pub(crate) fn warm_up(&mut self) -> Result<(), Box<dyn Error>> {
        self.publish_for(self.options.warmup)?;
        Ok(self.tally.restart()?)
    }

    pub(crate) fn measure(&mut self, server: &Processes) -> Result<Window, Box<dyn Error>> {
        let driver = Processes::of(std::process::id());
        let (server_before, driver_before) = (server.cpu(), driver.cpu());
        let started = Instant::now();
        self.publish_for(self.options.duration)?;
        let window = Window {
            lasted: started.elapsed(),
            server: server.cpu().saturating_sub(server_before),
            driver: driver.cpu().saturating_sub(driver_before),
        };
        self.tally.settle();
        Ok(window)
    }

    /// Publishes at the pace that was asked for, then lets everything arrive.
    fn publish_for(&mut self, duration: Duration) -> io::Result<()> {
        match self.options.pace {
            Pace::Rate(rate) => self.open_loop(rate, duration)?,
            Pace::Window(window) => self.closed_loop(window, duration)?,
        }
        let drained = Instant::now() + DRAIN_TIMEOUT;
        while self.tally.outstanding > 0 && Instant::now() < drained {
            self.turn(TURN)?;
        }
        // Whoever still waits for an answer does not get it any more.
        for progress in &mut self.progress {
            (progress.own, progress.acked) = (progress.sent, progress.sent);
        }
        Ok(())
    }

    fn open_loop(&mut self, rate: f64, duration: Duration) -> io::Result<()> {
        let first = self.now();
        let count = (rate * duration.as_secs_f64()).round() as u64;
        for index in 0..count {
            let intended = first + (index as f64 / rate * 1e9) as u64;
            loop {
                let now = self.now();
                if now >= intended {
                    break;
                }
                self.turn(Duration::from_nanos(intended - now).min(TURN))?;
            }
            self.publish(index as usize % self.options.publishers, intended);
        }
        Ok(())
    }

    fn closed_loop(&mut self, window: usize, duration: Duration) -> io::Result<()> {
        let end = Instant::now() + duration;
        let publishers = self.options.publishers;
        // The first ones have one more when the window cannot be split evenly.
        let share = |publisher| (window / publishers + usize::from(publisher < window % publishers)) as u32;
        while Instant::now() < end {
            for publisher in 0..publishers {
                while self.in_flight(publisher) < share(publisher) && !self.connections[publisher].is_closed()
                {
                    let now = self.now();
                    self.publish(publisher, now);
                }
            }
            self.turn(TURN)?;
        }
        Ok(())
    }

    /// A publication is in flight until its sender has its own copy, and the answer if
    /// there is one: so every server has the same to do for it.
    fn in_flight(&self, publisher: usize) -> u32 {
        let Progress { sent, own, acked } = self.progress[publisher];
        sent.saturating_sub(if self.dialect.acks() { own.min(acked) } else { own })
    }

    fn publish(&mut self, publisher: usize, intended: u64) {
        if self.connections[publisher].is_closed() {
            return;
        }
        let number = self.tally.publish(publisher);
        self.progress[publisher].sent += 1;
        let stamp = Stamp { nanoseconds: intended, publisher, number };
        payload::write(&mut self.data, stamp, self.options.size);
        let connection = &mut self.connections[publisher];
        if let Err(error) = connection.publish(self.dialect, number, &self.data, &mut self.scratch) {
            self.lose(publisher, &error);
        }
    }

    fn idle(&mut self, duration: Duration) -> io::Result<()> {
        let end = Instant::now() + duration;
        while Instant::now() < end {
            self.turn(TURN)?;
        }
        Ok(())
    }

    /// Waits for the sockets, `timeout` at most, and serves those that have something.
    fn turn(&mut self, timeout: Duration) -> io::Result<()> {
        // The kernel waits in whole milliseconds; the rest is spent asking, or messages
        // would be sent late.
        let timeout = Duration::from_millis(timeout.as_millis() as u64);
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(1));
        for event in &events {
            self.serve(event.token().0, event.is_readable());
        }
        self.events = events;
        Ok(())
    }

    fn serve(&mut self, number: usize, readable: bool) {
        let connection = &mut self.connections[number];
        if connection.is_closed() {
            return;
        }
        let was_ready = connection.is_ready();
        let served = match readable {
            true => connection.readable(self.dialect, &mut self.scratch),
            false => connection.flush(),
        };
        self.ready += usize::from(connection.is_ready() && !was_ready);
        self.heed(number);
        if let Err(error) = served {
            self.lose(number, &error);
        }
    }

    /// Books what the connection was told.
    fn heed(&mut self, number: usize) {
        let now = self.started.elapsed().as_nanos() as u64;
        for event in self.scratch.outcome.events.drain(..) {
            match event {
                Event::Ready => {}
                Event::Delivery(stamp) => {
                    self.tally.delivered(number, stamp, now);
                    if stamp.publisher == number {
                        self.progress[number].own += 1;
                    }
                }
                Event::Ack => {
                    if let Some(progress) = self.progress.get_mut(number) {
                        progress.acked += 1;
                    }
                }
                Event::Refused(text) => {
                    self.refused += 1;
                    if self.refused <= COMPLAINTS_MAX {
                        eprintln!("peer-driver: connection {number}: {text}");
                    }
                }
            }
        }
    }

    fn lose(&mut self, number: usize, error: &io::Error) {
        self.connections[number].close();
        self.closed += 1;
        if self.closed <= COMPLAINTS_MAX {
            eprintln!("peer-driver: connection {number}: {error}");
        }
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }
}
