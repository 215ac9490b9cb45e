//! One thread of the load generator: its connections, all of them behind one poller.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};

use crate::clients::Client;
use crate::clock;
use crate::connection::{Arrival, Connection, Role, Stage};
use crate::control::{Control, Phase, Storm};
use crate::plan::Plan;
use crate::publisher::{Publisher, Sent};
use crate::tally::{End, Tally};
use crate::wire::{self, Line, Reader};

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
    poll: Poll,
    clients: std::vec::IntoIter<Client>,
    next: Option<Client>,
    connections: Vec<Connection>,
    publishers: Vec<Publisher>,
    /// Connection of each publisher.
    publishing: Vec<usize>,
    half_open: usize,
    /// Everything that was due has left.
    has_sent_all: bool,
    /// Processor time of this thread when the measured time began.
    cpu_before: Option<Duration>,
    /// How far the storm is for this thread's listeners, and who has still to come back.
    storm: Storm,
    returning: Vec<usize>,
    reader: Reader,
    tally: Tally,
    /// Counted here and added to the shared counts once a turn.
    arrived: u64,
    connect: String,
}

impl Driver {
    pub(crate) fn new(plan: Arc<Plan>, control: Arc<Control>, clients: Vec<Client>) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            tally: Tally::new(&plan),
            connect: wire::connect(plan.token.as_deref()),
            plan,
            control,
            clients: clients.into_iter(),
            next: None,
            connections: Vec::new(),
            publishers: Vec::new(),
            publishing: Vec::new(),
            half_open: 0,
            has_sent_all: false,
            cpu_before: None,
            storm: Storm::NotStarted,
            returning: Vec::new(),
            reader: Reader::new(),
            arrived: 0,
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
                return Ok(self.finish());
            }
            self.open_more();
            self.follow_storm();
            if phase != Phase::Ramp {
                self.publish_due();
                self.watch_itself(phase);
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
                let place = event.token().0;
                let (writable, ended) = (event.is_writable(), event.is_read_closed());
                if let Err(error) = self.serve(place, writable, ended, &mut buffer) {
                    self.lose(place, &error);
                }
            }
            self.control.arrived.fetch_add(std::mem::take(&mut self.arrived), Ordering::AcqRel);
        }
    }

    /// How long nothing is to be done, unless the server does something.
    fn sleep(&self, phase: Phase) -> Duration {
        if phase != Phase::Run {
            return SLEEP_MAX;
        }
        let (from, now) = (self.control.run_from_ns(), self.control.now_ns());
        let publishing = self.publishers.iter().zip(&self.publishing);
        // One that is full is woken by its socket.
        let due = publishing
            .filter(|(_, place)| {
                let connection = &self.connections[**place];
                connection.stage == Stage::Ready && !connection.is_full()
            })
            .filter_map(|(publisher, _)| publisher.due_ns(from))
            .min();
        due.map_or(SLEEP_MAX, |due| Duration::from_nanos(due.saturating_sub(now)).min(SLEEP_MAX))
    }

    /// Notes how busy this thread is, and whether it has sent all it had to.
    fn watch_itself(&mut self, phase: Phase) {
        let (from, until) = self.control.measured();
        let now = self.control.now_ns();
        if self.cpu_before.is_none() && now >= from {
            self.cpu_before = Some(clock::thread_time());
        }
        if phase != Phase::Drain || self.has_sent_all {
            return;
        }
        if self.tally.busiest == 0.0
            && let Some(before) = self.cpu_before
        {
            let used = clock::thread_time().saturating_sub(before);
            self.tally.busiest = used.as_secs_f64() * 1e9 / (now - from) as f64;
        }
        let run_from = self.control.run_from_ns();
        self.has_sent_all = self.publishers.iter().zip(&self.publishing).all(|(publisher, place)| {
            self.connections[*place].stage != Stage::Ready
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
            let number = client.number();
            if number >= self.control.allowed.load(Ordering::Acquire) {
                self.next = Some(client);
                return;
            }
            if let Err(error) = self.open(number, client) {
                self.note_broken(&format!("a connection could not be made: {error}"));
            }
        }
    }

    fn open(&mut self, number: usize, client: Client) -> io::Result<()> {
        let place = self.connections.len();
        let role = match client {
            Client::Listener { group, room, .. } => Role::Listener { group, room },
            Client::Publisher { .. } => Role::Publisher(self.publishers.len()),
        };
        let connection = self.dial(place, number, role)?;
        if let Client::Publisher { group, place: among, .. } = client {
            self.publishers.push(Publisher::new(group, &self.plan.groups[group], among));
            self.publishing.push(place);
        }
        self.connections.push(connection);
        self.half_open += 1;
        Ok(())
    }

    /// Begins a connection.
    fn dial(&mut self, place: usize, number: usize, role: Role) -> io::Result<Connection> {
        let mut connection = Connection::open(self.plan.address, number, role)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut connection.socket, Token(place), interest)?;
        wire::handshake(connection.output(), &self.plan.host, &self.plan.path);
        Ok(connection)
    }

    /// Takes part in a storm: all listeners disconnect at once, and come back as fast as they can.
    fn follow_storm(&mut self) {
        match (self.storm, self.control.storm()) {
            (Storm::NotStarted, Storm::Disconnected | Storm::Returning) => self.disconnect_listeners(),
            (Storm::Disconnected, Storm::Returning) => self.storm = Storm::Returning,
            _ => {}
        }
        while self.storm == Storm::Returning && self.half_open < HALF_OPEN_MAX {
            let Some(place) = self.returning.pop() else { return };
            match self.dial(place, place, self.connections[place].role) {
                Ok(mut connection) => {
                    std::mem::swap(&mut connection, &mut self.connections[place]);
                    self.connections[place].take_over(connection);
                    self.half_open += 1;
                }
                Err(error) => self.note_broken(&format!("a connection could not come back: {error}")),
            }
        }
    }

    fn disconnect_listeners(&mut self) {
        self.storm = Storm::Disconnected;
        for (place, connection) in self.connections.iter_mut().enumerate() {
            if matches!(connection.role, Role::Listener { .. }) && connection.stage == Stage::Ready {
                let _ = self.poll.registry().deregister(&mut connection.socket);
                connection.cut_off();
                self.returning.push(place);
            }
        }
        self.control.ready.fetch_sub(self.returning.len(), Ordering::AcqRel);
    }

    /// Reads and answers what a socket has.
    fn serve(&mut self, place: usize, writable: bool, ended: bool, buffer: &mut [u8]) -> io::Result<()> {
        if matches!(self.connections[place].stage, Stage::Closed | Stage::Disconnected) {
            return Ok(());
        }
        if writable {
            self.connections[place].flush()?;
        }
        while let Some((count, arrived_at)) = self.connections[place].read(buffer)? {
            let now_ns = self.control.at(arrived_at);
            if self.control.counts(now_ns) {
                let late = self.control.now_ns().saturating_sub(now_ns);
                self.tally.read_late_ns = self.tally.read_late_ns.max(late);
            }
            if self.connections[place].input.is_empty() {
                let used = self.take(place, &buffer[..count], now_ns)?;
                self.connections[place].input.extend_from_slice(&buffer[used..count]);
            } else {
                let mut input = std::mem::take(&mut self.connections[place].input);
                input.extend_from_slice(&buffer[..count]);
                let used = self.take(place, &input, now_ns)?;
                input.drain(..used);
                self.connections[place].input = input;
            }
            if count < buffer.len() && !ended {
                break; // The poller reports what comes from now on.
            }
        }
        if self.control.phase() != Phase::Ramp
            && let Role::Publisher(publisher) = self.connections[place].role
        {
            self.publish(publisher)?;
        }
        self.connections[place].flush()
    }

    /// Takes whole frames off the front; returns how many bytes that were.
    fn take(&mut self, place: usize, bytes: &[u8], now_ns: u64) -> io::Result<usize> {
        let mut rest = bytes;
        if self.connections[place].stage == Stage::Shaking {
            let Some(end) = memchr::memmem::find(rest, b"\r\n\r\n") else { return Ok(0) };
            if !rest.starts_with(b"HTTP/1.1 101 ") {
                let line =
                    String::from_utf8_lossy(rest.split(|byte| *byte == b'\r').next().unwrap_or_default());
                return Err(io::Error::other(format!("the server answered: {line}")));
            }
            rest = &rest[end + 4..];
            let connect = std::mem::take(&mut self.connect);
            self.say(place, &connect, Stage::Greeting);
            self.connect = connect;
        }
        while let Some((first, payload, behind)) = wire::split_frame(rest) {
            let (is_last, opcode) = (first & 0x80 != 0, first & 0x0f);
            match opcode {
                0x0 | 0x1 if !is_last || opcode == 0x0 => {
                    let mut partial = std::mem::take(&mut self.connections[place].partial);
                    partial.extend_from_slice(payload);
                    if is_last {
                        self.hear_all(place, &partial, now_ns)?;
                        partial.clear();
                    }
                    self.connections[place].partial = partial;
                }
                0x1 => self.hear_all(place, payload, now_ns)?,
                0x9 => wire::pong(self.connections[place].output(), payload),
                0x8 => {
                    let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned();
                    return Err(io::Error::other(format!("the server closed a connection: {reason}")));
                }
                _ => {}
            }
            rest = behind;
        }
        Ok(bytes.len() - rest.len())
    }

    fn say(&mut self, place: usize, text: &str, stage: Stage) {
        let connection = &mut self.connections[place];
        wire::frame(connection.output(), text.as_bytes());
        connection.stage = stage;
    }

    /// Hears every line of a message.
    fn hear_all(&mut self, place: usize, message: &[u8], now_ns: u64) -> io::Result<()> {
        message.split(|byte| *byte == b'\n').try_for_each(|line| self.hear(place, line, now_ns))
    }

    fn hear(&mut self, place: usize, line: &[u8], now_ns: u64) -> io::Result<()> {
        match self.reader.read(line) {
            Line::Ping => wire::frame(self.connections[place].output(), b"{}"),
            Line::Other => {}
            Line::Delivery { offset, sent_ns } => self.arrive(place, offset, sent_ns, now_ns)?,
            Line::Reply { id, error } => self.answer(place, id, error, line, now_ns),
        }
        Ok(())
    }

    fn answer(&mut self, place: usize, id: u64, error: Option<&str>, line: &[u8], now_ns: u64) {
        let (stage, role) = (self.connections[place].stage, self.connections[place].role);
        match (stage, role, error) {
            (Stage::Ready, Role::Publisher(publisher), error) => {
                self.acknowledge(publisher, id, error, now_ns);
            }
            (_, _, Some(error)) => {
                let error = format!("the server refused a client: {error}");
                self.lose(place, &io::Error::other(error));
            }
            (Stage::Greeting, Role::Listener { group, room }, None) => {
                let connection = &self.connections[place];
                let from = connection.epoch.as_deref().map(|epoch| (epoch, connection.last));
                let subscribe = wire::subscribe(&self.plan.room(group, room), from);
                self.say(place, &subscribe, Stage::Joining);
            }
            (Stage::Greeting | Stage::Joining, role, None) => {
                if let Role::Listener { .. } = role
                    && let Err(error) = self.join(place, line, now_ns)
                {
                    return self.lose(place, &error);
                }
                self.connections[place].stage = Stage::Ready;
                self.half_open -= 1;
                self.control.ready.fetch_add(1, Ordering::AcqRel);
            }
            _ => {}
        }
    }

    /// Takes the position, or what was missed since the last one.
    fn join(&mut self, place: usize, line: &[u8], now_ns: u64) -> io::Result<()> {
        let joined = wire::joined(line)?;
        let connection = &mut self.connections[place];
        if connection.epoch.is_none() {
            connection.last = joined.offset;
        } else if !joined.recovered {
            return Err(io::Error::other("a listener came back and was told that it cannot recover"));
        }
        connection.epoch = Some(joined.epoch).filter(|epoch| !epoch.is_empty());
        for missed in joined.publications {
            if let Role::Listener { group, .. } = self.connections[place].role {
                self.tally.groups[group].recovered += 1;
            }
            self.arrive(place, Some(missed.offset), None, now_ns)?;
        }
        Ok(())
    }

    fn acknowledge(&mut self, publisher: usize, id: u64, error: Option<&str>, now_ns: u64) {
        let publisher = &mut self.publishers[publisher];
        let Some(sent) = publisher.answered(id) else { return };
        let (number, control) = (publisher.group, &self.control);
        let group = &mut self.tally.groups[number];
        match error {
            Some(error) => {
                group.refused += 1;
                group.refusal.get_or_insert_with(|| error.to_owned());
            }
            None => {
                group.rooms[sent.room].acknowledged += 1;
                group.acknowledged_in_time += u64::from(control.counts(now_ns));
                if control.counts(sent.due_ns) {
                    group.published += 1;
                    group.ack.record(sent.due_ns, now_ns);
                }
                let listeners = self.plan.groups[number].listeners_of(sent.room) as u64;
                control.acknowledged.fetch_add(1, Ordering::AcqRel);
                control.expected.fetch_add(listeners, Ordering::AcqRel);
            }
        }
        control.under_way.fetch_sub(1, Ordering::AcqRel);
    }

    fn arrive(
        &mut self,
        place: usize,
        offset: Option<u64>,
        sent_ns: Option<u64>,
        now_ns: u64,
    ) -> io::Result<()> {
        let connection = &mut self.connections[place];
        let Role::Listener { group, room } = connection.role else { return Ok(()) };
        let group = &mut self.tally.groups[group];
        match offset.map_or(Arrival::Next, |offset| connection.note(offset)) {
            Arrival::Again => {
                group.repeated += 1;
                return Ok(());
            }
            Arrival::Absurd => {
                return Err(io::Error::other("the server sent an offset far ahead of the last one"));
            }
            Arrival::Late => group.out_of_order += 1,
            Arrival::Next => {}
        }
        self.arrived += 1;
        connection.arrived += 1;
        group.delivered_in_time += u64::from(sent_ns.is_some() && self.control.counts(now_ns));
        let Some(due_ns) = sent_ns.filter(|due| self.control.counts(*due)) else { return Ok(()) };
        group.delivered += 1;
        group.delivery.record(due_ns, now_ns);
        if let Some(offset) = offset {
            group.rooms[room].arrive(offset, due_ns, now_ns);
        }
        Ok(())
    }

    fn publish_due(&mut self) {
        for publisher in 0..self.publishers.len() {
            let place = self.publishing[publisher];
            if self.connections[place].stage != Stage::Ready {
                continue;
            }
            let sent = self.publish(publisher).and_then(|()| self.connections[place].flush());
            if let Err(error) = sent {
                self.lose(place, &error);
            }
        }
    }

    /// Queues every publish that may leave by now; each is a frame of its own, as clients send them.
    fn publish(&mut self, number: usize) -> io::Result<()> {
        let (publisher, place) = (&mut self.publishers[number], self.publishing[number]);
        let (run_from, now) = (self.control.run_from_ns(), self.control.now_ns());
        let group = publisher.group;
        let mut text = Vec::new();
        while !self.connections[place].is_full()
            && let Some((id, sent)) = publisher.next(run_from, now)
        {
            if sent.due_ns >= self.control.measured().1 {
                publisher.answered(id);
                break;
            }
            text.clear();
            wire::publish(
                &mut text,
                id,
                &self.plan.room(group, sent.room),
                sent.due_ns,
                self.plan.groups[group].size,
            );
            wire::frame(self.connections[place].output(), &text);
            self.control.under_way.fetch_add(1, Ordering::AcqRel);
        }
        Ok(())
    }

    fn lose(&mut self, place: usize, error: &io::Error) {
        let connection = &mut self.connections[place];
        match connection.stage {
            Stage::Closed | Stage::Disconnected => return,
            Stage::Ready => {}
            Stage::Shaking | Stage::Greeting | Stage::Joining => self.half_open -= 1,
        }
        connection.stage = Stage::Closed;
        // Closing the socket takes it out of the poller as well.
        let _ = self.poll.registry().deregister(&mut connection.socket);
        let _ = connection.socket.shutdown(std::net::Shutdown::Both);
        self.note_broken(&error.to_string());
    }

    fn note_broken(&mut self, why: &str) {
        self.tally.broken += 1;
        self.tally.breakage.get_or_insert_with(|| why.to_owned());
        self.control.broken.fetch_add(1, Ordering::AcqRel);
    }

    fn finish(mut self) -> Tally {
        for connection in &self.connections {
            if let Role::Listener { group, room } = connection.role {
                let (arrived, missing) = (connection.arrived, connection.missing.len() as u64);
                let end = End { arrived, missing, last: connection.last };
                self.tally.groups[group].rooms[room].ends.push(end);
            }
        }
        self.note_unanswered();
        self.tally
    }

    /// What got no answer, or could not even leave, has waited until now at least.
    fn note_unanswered(&mut self) {
        let (now, run_from, (_, until)) =
            (self.control.now_ns(), self.control.run_from_ns(), self.control.measured());
        if until == u64::MAX {
            return; // Nobody has published.
        }
        for publisher in &mut self.publishers {
            let group = &mut self.tally.groups[publisher.group];
            let mut sent: Vec<Sent> = publisher.unanswered().collect();
            for sent in &sent {
                group.rooms[sent.room].unanswered += 1;
            }
            if publisher.due_ns(run_from).is_some() {
                sent.extend(std::iter::from_fn(|| publisher.next(run_from, until - 1)).map(|(_, sent)| sent));
            }
            group.unanswered += sent.len() as u64;
            for sent in sent.iter().filter(|sent| self.control.counts(sent.due_ns)) {
                group.ack.record(sent.due_ns, now);
            }
        }
    }
}
