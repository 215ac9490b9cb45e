//! Readers with connections of the tests, on real sockets, and both pollers.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::net::{Ipv4Addr, TcpListener};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::*;

/// Longest wait for something that must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Both ends of a connection on the loopback device: the client's, and the server's.
fn pair() -> (TcpStream, Arc<TcpStream>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, Arc::new(listener.accept().unwrap().0))
}

/// A connection that tells each turn and tick, and does as it is told by the bytes it reads.
struct Probe {
    id: ConnectionId,
    socket: Arc<TcpStream>,
    told: Sender<Event>,
    deadline: Option<Instant>,
    interest: Option<Interest>,
    /// Ticks want a turn.
    wants_turn: bool,
    hold: Option<Receiver<()>>,
    /// A turn may come without bytes at any time; only some tests ask for them.
    tells_empty_turns: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Event {
    Turn(Vec<u8>),
    Tick,
    Dropped,
}

impl Connection for Probe {
    fn id(&self) -> ConnectionId {
        self.id
    }

    fn socket(&self) -> &Arc<TcpStream> {
        &self.socket
    }

    fn turn(&mut self, _: &Arc<dyn Reader>) -> Next {
        let mut bytes = vec![0; 64];
        self.socket.set_nonblocking(true).unwrap();
        let count = match (&*self.socket).read(&mut bytes) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => panic!("{error}"),
        };
        bytes.truncate(count);
        let next = match bytes.first() {
            Some(b'e') => Next::End,
            Some(b'p') => panic!("on purpose"),
            _ => Next::Wait(Wait { interest: self.interest, deadline: self.deadline }),
        };
        if let (Some(b'h'), Some(hold)) = (bytes.first(), &self.hold) {
            blocking::waiting(|| hold.recv_timeout(PATIENCE)).unwrap();
        }
        if self.tells_empty_turns || !bytes.is_empty() {
            let _ = self.told.send(Event::Turn(bytes));
        }
        next
    }

    fn take_work(&mut self) -> Option<Work> {
        None
    }

    fn tick(&mut self, now: Instant) -> Tick {
        if self.deadline.is_some_and(|at| at > now) {
            return Tick::Until(self.deadline);
        }
        self.deadline = None;
        let _ = self.told.send(Event::Tick);
        if self.wants_turn { Tick::Turn(None) } else { Tick::Until(None) }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = self.told.send(Event::Dropped);
    }
}

struct Rig {
    readers: Arc<Readers<Probe>>,
    metrics: Arc<Metrics>,
    told: Receiver<Event>,
    tell: Sender<Event>,
}

impl Rig {
    fn new(readers_max: usize) -> Self {
        let metrics = Arc::new(Metrics::new());
        let (tell, told) = unbounded();
        Self { readers: Readers::start(readers_max, metrics.clone()).unwrap(), metrics, told, tell }
    }

    fn probe(&self) -> (TcpStream, Probe) {
        let (client, socket) = pair();
        let probe = Probe {
            id: ConnectionId::next(),
            socket,
            told: self.tell.clone(),
            deadline: None,
            interest: Some(Interest::Read),
            wants_turn: false,
            hold: None,
            tells_empty_turns: false,
        };
        (client, probe)
    }

    fn add(&self, probe: Probe) {
        self.readers.add(Box::new(probe), Instant::now() + PATIENCE).unwrap();
    }

    #[track_caller]
    fn expect(&self, event: &Event) {
        assert_eq!(self.told.recv_timeout(PATIENCE).as_ref(), Ok(event));
    }

    fn stop(self) {
        self.readers.stop();
        assert_eq!(self.metrics.readers.get(), 0, "every thread has ended");
    }
}

#[test]
fn bytes_give_a_connection_its_turns() {
    let rig = Rig::new(4);
    let (mut client, probe) = rig.probe();
    rig.add(probe);
    client.write_all(b"one").unwrap();
    rig.expect(&Event::Turn(b"one".to_vec()));
    client.write_all(b"two").unwrap();
    rig.expect(&Event::Turn(b"two".to_vec()));
    client.write_all(b"end").unwrap();
    rig.expect(&Event::Turn(b"end".to_vec()));
    rig.expect(&Event::Dropped);
    rig.stop();
}

#[test]
fn a_wake_up_gives_a_turn_whatever_is_waited_for() {
    let rig = Rig::new(4);
    let (_client, mut probe) = rig.probe();
    (probe.interest, probe.tells_empty_turns) = (None, true);
    let id = probe.id;
    rig.add(probe);
    rig.readers.wake(id);
    rig.expect(&Event::Turn(Vec::new()));
    rig.readers.wake_all();
    rig.expect(&Event::Turn(Vec::new()));
    rig.readers.wake(ConnectionId(u64::MAX));
    rig.stop();
}

#[test]
fn deadlines_are_ticks_and_turns() {
    let rig = Rig::new(4);
    let (_client, mut probe) = rig.probe();
    probe.deadline = Some(Instant::now() + Duration::from_millis(5));
    probe.tells_empty_turns = true;
    let id = probe.id;
    rig.add(probe);
    rig.readers.wake(id);
    rig.expect(&Event::Turn(Vec::new()));
    rig.expect(&Event::Tick);
    let (_other, mut probe) = rig.probe();
    probe.deadline = Some(Instant::now());
    (probe.wants_turn, probe.tells_empty_turns) = (true, true);
    let id = probe.id;
    rig.add(probe);
    rig.readers.wake(id);
    rig.expect(&Event::Turn(Vec::new()));
    rig.expect(&Event::Tick);
    rig.expect(&Event::Turn(Vec::new()));
    rig.stop();
}

#[test]
fn a_panic_drops_its_connection_alone() {
    let rig = Rig::new(4);
    let (mut client, probe) = rig.probe();
    rig.add(probe);
    client.write_all(b"panic").unwrap();
    rig.expect(&Event::Dropped);
    let (mut client, probe) = rig.probe();
    rig.add(probe);
    client.write_all(b"one").unwrap();
    rig.expect(&Event::Turn(b"one".to_vec()));
    assert_eq!(rig.metrics.reader_panics_total.get(), 1);
    rig.stop();
}

#[test]
fn others_are_served_while_readers_wait_up_to_their_bound() {
    let rig = Rig::new(2);
    let (release, held) = unbounded();
    let mut clients = Vec::new();
    for _ in 0..2 {
        let (mut client, mut probe) = rig.probe();
        probe.hold = Some(held.clone());
        rig.add(probe);
        client.write_all(b"hold").unwrap();
        clients.push(client);
    }
    let (mut other, probe) = rig.probe();
    rig.add(probe);
    while rig.metrics.readers_exhausted_total.get() == 0 {
        thread::yield_now();
    }
    assert_eq!(rig.metrics.readers.get(), 2);
    other.write_all(b"one").unwrap();
    release.send(()).unwrap();
    rig.expect(&Event::Turn(b"hold".to_vec()));
    rig.expect(&Event::Turn(b"one".to_vec()));
    release.send(()).unwrap();
    rig.expect(&Event::Turn(b"hold".to_vec()));
    rig.stop();
}

/// The contract of a poller.
macro_rules! poller_contract {
    ($name:ident, $poller:ty) => {
        #[test]
        fn $name() {
            let poller = <$poller>::new().unwrap();
            let told = |poller: &$poller| poller.wait(PATIENCE).expect("an event");
            let (mut client, socket) = pair();
            let id = ConnectionId(5);
            client.write_all(b"x").unwrap();
            poller.add(id, &socket, Interest::Read).unwrap();
            assert_eq!(told(&poller), Told::Socket(id), "what came before is told");
            poller.arm(id, &socket, Interest::Read);
            assert_eq!(told(&poller), Told::Socket(id), "it is still unread");
            (&*socket).read_exact(&mut [0]).unwrap();
            poller.arm(id, &socket, Interest::Read);
            poller.ring();
            assert_eq!(told(&poller), Told::Queue);
            client.write_all(b"y").unwrap();
            assert_eq!(told(&poller), Told::Socket(id));
            poller.arm(id, &socket, Interest::Write);
            assert_eq!(told(&poller), Told::Socket(id), "there is space");
            assert_eq!(poller.wait(Duration::ZERO), None, "each event is told once");
        }
    };
}

#[cfg(any(target_os = "linux", target_os = "android"))]
poller_contract!(the_poller_of_linux_keeps_its_contract, poller::Poller);
poller_contract!(the_portable_poller_keeps_its_contract, portable::Poller);
