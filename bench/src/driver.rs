//! One thread of the load generator: its connections, all of them behind one poller.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};

use crate::clients::Client;
use crate::clock;
use crate::connection::{Connection, Stage};
use crate::control::{Control, Phase, Storm};
use crate::dialect::{Decoded, Dialect, Event, FIRST_PUBLISH_ID, Joined};
use crate::payload::{self, Stamp};
use crate::plan::Plan;
use crate::publisher::Publisher;
use crate::recorder::Recorder;
use crate::tally::Tally;

/// Most connections that wait for the server at the same time while connections are made.
const HALF_OPEN_MAX: usize = 512;

/// Longest sleep: how late a change of phase may be noticed.
const SLEEP_MAX: Duration = Duration::from_millis(5);

/// How long the thread looks again before it sleeps. To wake it costs the sender several microseconds,
/// which a server whose clients are elsewhere does not pay; within a fan-out it is awake.
const AWAKE_NS: u64 = 50_000;

/// The poller counts in milliseconds.
const POLL_TICK: Duration = Duration::from_millis(1);

/// Bytes read at a time.
const READ_BYTES: usize = 64 * 1024;

/// One thread: the connections it makes, drives and counts for.
#[derive(Debug)]
pub(crate) struct Driver {
    plan: Arc<Plan>,
    control: Arc<Control>,
    dialect: Box<dyn Dialect>,
    recorder: Recorder,
    poll: Poll,
    clients: std::vec::IntoIter<Client>,
    next: Option<Client>,
    connections: Vec<Connection>,
    publishers: Vec<Publisher>,
    half_open: usize,
    /// Everything that was due has left.
    has_sent_all: bool,
    /// Processor time of this thread when the measured time began.
    cpu_before: Option<Duration>,
    /// How far the storm is for this thread's listeners, and who has still to come back.
    storm: Storm,
    returning: Vec<usize>,
    scratch: Scratch,
}

/// Buffers that are used again and again.
#[derive(Debug, Default)]
struct Scratch {
    decoded: Decoded,
    payload: Vec<u8>,
    message: Vec<u8>,
}

impl Driver {
    pub(crate) fn new(plan: Arc<Plan>, control: Arc<Control>, clients: Vec<Client>) -> io::Result<Self> {
        let dialect = plan.dialect.dialect(&plan.path, plan.token.as_deref());
        Ok(Self {
            poll: Poll::new()?,
            recorder: Recorder::new(plan.clone(), control.clone(), dialect.acknowledges()),
            dialect,
            plan,
            control,
            clients: clients.into_iter(),
            next: None,
            connections: Vec::new(),
            publishers: Vec::new(),
            half_open: 0,
            has_sent_all: false,
            cpu_before: None,
            storm: Storm::NotStarted,
            returning: Vec::new(),
            scratch: Scratch::default(),
        })
    }

    /// Runs until the phase is [`Phase::Stop`] and returns what was counted.
    pub(crate) fn run(mut self) -> io::Result<Tally> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; READ_BYTES];
        let mut awake_until_ns = 0;
        loop {
            let phase = self.control.phase();
            if phase == Phase::Stop {
                let listeners = self.connections.iter().filter_map(|connection| connection.listener.as_ref());
                return Ok(self.recorder.finish(listeners, &mut self.publishers));
            }
            self.open_more();
            self.follow_storm();
            if phase != Phase::Ramp {
                self.publish_due();
                self.measure_itself(phase);
            }
            let awake = self.control.now_ns() < awake_until_ns;
            let mut sleep = if awake { Duration::ZERO } else { self.sleep(phase) };
            if sleep < POLL_TICK {
                // The poller would round up, and what arrives meanwhile has its time stamp.
                thread::sleep(sleep);
                sleep = Duration::ZERO;
            }
            match self.poll.poll(&mut events, Some(sleep)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            if !events.is_empty() {
                awake_until_ns = self.control.now_ns() + AWAKE_NS;
            }
            for event in &events {
                let index = event.token().0;
                let (writable, ended) = (event.is_writable(), event.is_read_closed());
                if let Err(error) = self.serve(index, writable, ended, &mut buffer) {
                    self.close_failed(index, &error);
                }
            }
            self.recorder.end_turn();
        }
    }

    /// How long nothing is to be done, unless the server does something.
    fn sleep(&self, phase: Phase) -> Duration {
        if phase != Phase::Run {
            return SLEEP_MAX;
        }
        let (from, now) = (self.control.run_from_ns(), self.control.now_ns());
        // One that is full is woken by its socket.
        let due = self
            .publishers
            .iter()
            .filter(|publisher| {
                let connection = &self.connections[publisher.connection];
                connection.stage == Stage::Ready && !connection.is_full()
            })
            .filter_map(|publisher| publisher.due_ns(from))
            .min();
        due.map_or(SLEEP_MAX, |due| Duration::from_nanos(due.saturating_sub(now)).min(SLEEP_MAX))
    }

    /// Notes how busy this thread is, and whether it has sent all it had to.
    fn measure_itself(&mut self, phase: Phase) {
        let (from, until) = self.control.measured();
        let now = self.control.now_ns();
        if self.cpu_before.is_none() && now >= from {
            self.cpu_before = Some(clock::thread_time());
        }
        if phase != Phase::Drain || self.has_sent_all {
            return;
        }
        if let Some(before) = self.cpu_before {
            let used = clock::thread_time().saturating_sub(before);
            self.recorder.busy(used.as_secs_f64() * 1e9 / (now - from) as f64);
        }
        let run_from = self.control.run_from_ns();
        self.has_sent_all = self.publishers.iter().all(|publisher| {
            self.connections[publisher.connection].stage != Stage::Ready
                || publisher.due_ns(run_from).is_none_or(|due| due >= until)
        });
        if self.has_sent_all && !self.publishers.is_empty() {
            self.control.publishing.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Begins the connections that the ramp allows by now.
    fn open_more(&mut self) {
        while self.half_open < HALF_OPEN_MAX {
            let Some(client) = self.next.take().or_else(|| self.clients.next()) else { return };
            if client.number >= self.control.allowed.load(Ordering::Acquire) {
                self.next = Some(client);
                return;
            }
            if let Err(error) = self.open(&client) {
                self.recorder.broken(&format!("a connection could not be opened: {error}"));
            }
        }
    }

    fn open(&mut self, client: &Client) -> io::Result<()> {
        let index = self.connections.len();
        let mut connection = Connection::open(&self.plan, client, self.dialect.as_ref())?;
        register(&self.poll, &mut connection, index)?;
        if let Some(number) = client.publisher {
            connection.publisher = Some(self.publishers.len());
            let group = &self.plan.groups[client.group];
            self.publishers.push(Publisher::new(index, client.group, group, number));
        }
        self.connections.push(connection);
        self.half_open += 1;
        Ok(())
    }

    /// Takes part in a storm: all listeners disconnect at once, and come back as fast as they can.
    fn follow_storm(&mut self) {
        match (self.storm, self.control.storm()) {
            (Storm::NotStarted, Storm::Disconnected | Storm::Returning) => self.disconnect_listeners(),
            (Storm::Disconnected, Storm::Returning) => self.storm = Storm::Returning,
            _ => {}
        }
        while self.storm == Storm::Returning && self.half_open < HALF_OPEN_MAX {
            let Some(index) = self.returning.pop() else { return };
            match self.reopen(index) {
                Ok(()) => self.half_open += 1,
                Err(error) => self.recorder.broken(&format!("a connection could not be reopened: {error}")),
            }
        }
    }

    fn reopen(&mut self, index: usize) -> io::Result<()> {
        let connection = &mut self.connections[index];
        connection.reopen(&self.plan, index, self.dialect.as_ref())?;
        register(&self.poll, connection, index)
    }

    fn disconnect_listeners(&mut self) {
        self.storm = Storm::Disconnected;
        for (index, connection) in self.connections.iter_mut().enumerate() {
            if connection.listener.is_some()
                && connection.publisher.is_none()
                && connection.stage == Stage::Ready
            {
                let _ = self.poll.registry().deregister(connection.stream());
                connection.close(Stage::Disconnected);
                self.returning.push(index);
            }
        }
        self.control.ready.fetch_sub(self.returning.len(), Ordering::AcqRel);
    }

    /// Reads and answers what a socket has.
    fn serve(&mut self, index: usize, writable: bool, ended: bool, buffer: &mut [u8]) -> io::Result<()> {
        if matches!(self.connections[index].stage, Stage::Closed | Stage::Disconnected) {
            return Ok(());
        }
        if writable {
            self.connections[index].flush()?;
        }
        while let Some((count, arrived_at)) = self.connections[index].read(buffer)? {
            let now_ns = self.control.at(arrived_at);
            if self.control.counts(now_ns) {
                self.recorder.read_late(self.control.now_ns().saturating_sub(now_ns));
            }
            self.process(index, &buffer[..count], now_ns)?;
            if count < buffer.len() && !ended {
                break; // The poller reports what comes from now on.
            }
        }
        if self.control.phase() != Phase::Ramp
            && let Some(publisher) = self.connections[index].publisher
        {
            self.publish(publisher);
        }
        self.connections[index].flush()
    }

    /// Decodes what was read and handles the events, also those before an error.
    fn process(&mut self, index: usize, bytes: &[u8], now_ns: u64) -> io::Result<()> {
        let mut decoded = std::mem::take(&mut self.scratch.decoded);
        let processed = self.connections[index].process(bytes, self.dialect.as_ref(), &mut decoded);
        let handled = decoded.events.drain(..).try_for_each(|event| self.handle_event(index, event, now_ns));
        self.scratch.decoded = decoded;
        handled.and(processed)
    }

    fn handle_event(&mut self, index: usize, event: Event, now_ns: u64) -> io::Result<()> {
        let connection = &mut self.connections[index];
        match event {
            Event::Ready(joined) => return self.become_ready(index, &joined, now_ns),
            Event::Delivery { offset, stamp } => {
                if let Some(listener) = &mut connection.listener {
                    self.recorder.arrive(listener, offset, stamp, now_ns)?;
                }
                if let Some((publisher, stamp)) = connection.publisher.zip(stamp) {
                    self.note_own_copy(publisher, stamp, now_ns);
                }
            }
            Event::Ack { id, error } => {
                if let Some(publisher) = connection.publisher {
                    self.handle_ack(publisher, id, error, now_ns);
                }
            }
            Event::Refused(why) => return Err(io::Error::other(why)),
        }
        Ok(())
    }

    /// The server said that a client may begin.
    fn become_ready(&mut self, index: usize, joined: &Joined, now_ns: u64) -> io::Result<()> {
        let connection = &mut self.connections[index];
        if connection.stage != Stage::Joining {
            return Ok(());
        }
        if let Some(listener) = &mut connection.listener {
            if !listener.join(joined) {
                return Err(io::Error::other(
                    "a listener reconnected, and the server could not recover what it missed",
                ));
            }
            for offset in &joined.missed {
                self.recorder.recover(listener, *offset, now_ns)?;
            }
        }
        connection.stage = Stage::Ready;
        self.half_open -= 1;
        self.control.ready.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    fn handle_ack(&mut self, publisher: usize, id: u64, error: Option<String>, now_ns: u64) {
        let publisher = &mut self.publishers[publisher];
        let Some(sent) = publisher.answered(id) else { return };
        match error {
            Some(error) => {
                publisher.copied(id);
                self.recorder.refused(publisher.group, error);
            }
            None => self.recorder.acknowledged(publisher.group, sent, now_ns),
        }
    }

    /// A publisher got a message of its room, which may be its own.
    fn note_own_copy(&mut self, publisher: usize, stamp: Stamp, now_ns: u64) {
        if self.publishers[publisher].number as u64 != stamp.publisher {
            return;
        }
        let id = FIRST_PUBLISH_ID.saturating_add(stamp.number);
        if !self.dialect.acknowledges() {
            self.handle_ack(publisher, id, None, now_ns);
        }
        self.publishers[publisher].copied(id);
    }

    fn publish_due(&mut self) {
        for publisher in 0..self.publishers.len() {
            let index = self.publishers[publisher].connection;
            if self.connections[index].stage != Stage::Ready {
                continue;
            }
            self.publish(publisher);
            if let Err(error) = self.connections[index].flush() {
                self.close_failed(index, &error);
            }
        }
    }

    /// Queues every publish that may leave by now; each is a message of its own, as clients send them.
    fn publish(&mut self, publisher: usize) {
        let publisher = &mut self.publishers[publisher];
        let connection = &mut self.connections[publisher.connection];
        let (run_from, now) = (self.control.run_from_ns(), self.control.now_ns());
        let Scratch { payload, message, .. } = &mut self.scratch;
        while !connection.is_full()
            && let Some((id, sent)) = publisher.next(run_from, now)
        {
            if sent.due_ns >= self.control.measured().1 {
                publisher.withdraw();
                break;
            }
            let stamp =
                Stamp { due_ns: sent.due_ns, publisher: publisher.number as u64, number: sent.number };
            payload::write(payload, stamp, self.plan.groups[publisher.group].size);
            message.clear();
            self.dialect.publish(message, id, &self.plan.room(publisher.group, sent.room), payload);
            connection.send(self.dialect.opcode(), message);
            self.recorder.sent();
        }
    }

    fn close_failed(&mut self, index: usize, error: &io::Error) {
        let connection = &mut self.connections[index];
        match connection.stage {
            Stage::Closed | Stage::Disconnected => return,
            Stage::Ready => {}
            Stage::Handshake | Stage::Joining => self.half_open -= 1,
        }
        // Closing the socket takes it out of the poller as well.
        let _ = self.poll.registry().deregister(connection.stream());
        connection.close(Stage::Closed);
        self.recorder.broken(&error.to_string());
    }
}

fn register(poll: &Poll, connection: &mut Connection, index: usize) -> io::Result<()> {
    let interest = Interest::READABLE | Interest::WRITABLE;
    poll.registry().register(connection.stream(), Token(index), interest)
}
