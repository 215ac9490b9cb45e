//! Mass leave and mass resume: everybody is gone at once and back at once, and nobody misses a thing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::form::short_or_long;
use crate::support::PATIENCE;
use crate::support::server::TestServer;
use crate::swarm::{Pace, StopOnDrop, Swarm, Writer, resident_bytes};

const MISSED: usize = 50;

#[test]
fn a_reconnect_storm_is_served_from_memory() {
    let clients = short_or_long(500, 5_000);
    let mut storm = Storm::new(clients);
    storm.swarm.drop_all(0..clients);
    storm.writer.publish(MISSED);
    let seconds = storm.come_back();
    let server = &storm.server;
    assert_eq!(server.metric(r#"recoveries_total{outcome="tail"}"#), clients as u64);
    assert_eq!(server.metric("catch_up_pages_total"), 0);
    storm.go_on_live("storm, tail", seconds);
}

/// The rooms of a fresh process have no tail, so everybody reads the database; yet not each for itself.
#[test]
fn a_reconnect_storm_after_a_crash_reads_every_page_once() {
    let clients = short_or_long(500, 5_000);
    let mut storm = Storm::new(clients);
    storm.swarm.drop_all(0..clients);
    storm.writer.publish(MISSED);
    storm.server.kill9();
    storm.server.run();
    storm.swarm.address = storm.server.address;
    let seconds = storm.come_back();
    let server = &storm.server;
    assert_eq!(server.metric(r#"recoveries_total{outcome="log"}"#), clients as u64);
    let pages = server.metric("catch_up_pages_total");
    assert!((1..=clients as u64 / 20).contains(&pages), "{pages} pages were read for {clients} clients");
    storm.writer.reconnect(&storm.server);
    storm.go_on_live("storm, crash", seconds);
}

/// Many leave, and those in other rooms do not notice.
#[test]
fn thousands_that_vanish_at_once_stall_no_other() {
    let crowd = short_or_long(500, 10_000);
    let server = TestServer::start();
    let mut swarm = Swarm::new(&server);
    for index in 0..crowd {
        // Half in one large room, half in small ones, which tell each other who leaves.
        let small = format!("talk:{}", index % (crowd / 20));
        swarm.add(Pace::Free, &[if index % 2 == 0 { "crowd" } else { &small }]);
    }
    let others = crowd..crowd + 5;
    for _ in others.clone() {
        swarm.add(Pace::Free, &["elsewhere"]);
    }
    swarm.run_until("all joined", |swarm| swarm.all_joined(0..others.end));
    let mut writer = Writer::new(&server, &["elsewhere"], 100);
    writer.publish(1);
    swarm.run_until("the first message", |swarm| swarm.all_at(others.clone(), 1));
    let (stop, mut left) = (AtomicBool::new(false), u64::MAX);
    let started = Instant::now();
    let (acked, slowest) = std::thread::scope(|scope| {
        let publishing = scope.spawn(|| publish_until(&stop, &mut writer));
        let stopping = StopOnDrop(&stop);
        swarm.drop_all(0..crowd);
        let cut = started.elapsed();
        while left > others.len() as u64 {
            let next = Instant::now() + Duration::from_millis(10);
            swarm.run_until("a moment", |_| Instant::now() >= next);
            left = server.metric("listeners");
            assert!(started.elapsed() < PATIENCE, "{left} listeners are left");
        }
        drop(stopping);
        eprintln!("vanish: connections={crowd} cut_in={cut:?} gone_in={:?}", started.elapsed());
        publishing.join().unwrap()
    });
    let head = writer.head();
    swarm.run_until("all messages elsewhere", |swarm| swarm.all_at(others.clone(), head));
    eprintln!("vanish: acked_meanwhile={acked} slowest_ack_ms={slowest} lost=0");
    assert!(acked > 0);
}

/// Publishes one by one until told to stop; how many, and the milliseconds of the slowest.
fn publish_until(stop: &AtomicBool, writer: &mut Writer) -> (usize, u128) {
    let (mut acked, mut slowest) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let sent = Instant::now();
        writer.publish(1);
        acked += 1;
        slowest = slowest.max(sent.elapsed().as_millis());
    }
    (acked, slowest)
}

/// A room full of listeners that have its first messages.
struct Storm {
    server: TestServer,
    swarm: Swarm,
    writer: Writer,
    clients: usize,
}

impl Storm {
    fn new(clients: usize) -> Self {
        let server = TestServer::start();
        let mut swarm = Swarm::new(&server);
        for _ in 0..clients {
            swarm.add(Pace::Free, &["room"]);
        }
        swarm.run_until("all joined", |swarm| swarm.all_joined(0..clients));
        let mut writer = Writer::new(&server, &["room"], 100);
        writer.publish(10);
        swarm.run_until("the first messages", |swarm| swarm.all_at(0..clients, 10));
        Self { server, swarm, writer, clients }
    }

    /// Everybody resumes; the seconds until the last one is complete.
    fn come_back(&mut self) -> f64 {
        let (started, head, clients) = (Instant::now(), self.writer.head(), self.clients);
        self.swarm.reopen(0..clients);
        self.swarm.run_until("all have what they missed", |swarm| swarm.all_at(0..clients, head));
        let recovered = self.swarm.listeners.iter().filter(|one| one.rooms[0].recovered == Some(true));
        assert_eq!(recovered.count(), clients);
        started.elapsed().as_secs_f64()
    }

    /// What is published from now on reaches everybody as well.
    fn go_on_live(&mut self, name: &str, seconds: f64) {
        let clients = self.clients;
        self.writer.publish(10);
        let head = self.writer.head();
        self.swarm.run_until("live messages", |swarm| swarm.all_at(0..clients, head));
        assert_eq!(self.swarm.deliveries(), clients as u64 * head);
        eprintln!(
            "{name}: clients={clients} missed={MISSED} deliveries={} seconds={seconds:.2} pages={} hits={} \
             rss_mib={} lost=0",
            self.swarm.deliveries(),
            self.server.metric("catch_up_pages_total"),
            self.server.metric("catch_up_page_hits_total"),
            resident_bytes(&self.server) >> 20,
        );
    }
}
