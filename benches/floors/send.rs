//! The floor of sending: one thread hands pushes to the kernel, socket after socket, with the call
//! and the flags of the outbox and nothing around it.

use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::net::SendFlags;

use super::common::sockets::Sockets;
use super::common::{PAYLOAD_BYTES, cpu, pushes};
use super::measure::{Case, Cost, Floor, Group};

/// How many connections.
pub(crate) const SOCKETS: &[usize] = &[1000, 5000, 10_000];

/// How many pushes one call hands over.
const COALESCED: &[usize] = &[1, 8, 32, 128];

/// Sent bytes that the reader has not confirmed, at most: bounds the kernel's memory, and with it
/// how far the reader may fall behind.
const UNREAD_BYTES_MAX: u64 = 16 * 1024 * 1024;

const FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

pub(crate) fn group(count: usize) -> Group {
    let case = |coalesced: &usize| Case {
        floor: "send",
        sockets: Some(count),
        coalesced: Some(*coalesced),
        bytes: pushes(*coalesced as u64, PAYLOAD_BYTES).len() / coalesced,
        units: (count * coalesced) as u64,
        ..Case::default()
    };
    // What the pace of the scenarios costs by itself: the caches are cold and the reader sleeps.
    let paced = Case { paced: Some(if count == 1000 { 100 } else { 5 }), ..case(&1) };
    let open =
        move || -> Box<dyn Floor> { Box::new(Send { sockets: Sockets::open(count), sent: 0, confirmed: 0 }) };
    Group { cases: COALESCED.iter().map(case).chain([paced]).collect(), open: Box::new(open) }
}

struct Send {
    sockets: Sockets,
    /// Bytes since the beginning.
    sent: u64,
    confirmed: u64,
}

impl Floor for Send {
    fn run(&mut self, case: &Case, rounds: u64) -> Cost {
        let buffer = pushes(case.coalesced.unwrap() as u64, PAYLOAD_BYTES);
        let (started, cpu_before) = (Instant::now(), cpu::of_thread());
        let mut at_work = Duration::ZERO;
        for round in 0..rounds {
            if let Some(rate) = case.paced {
                let due = started + Duration::from_secs(round) / rate;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            let begun = Instant::now();
            for index in 0..self.sockets.ends.len() {
                self.send(index, &buffer);
            }
            at_work += begun.elapsed();
        }
        self.confirm();
        // With rests, the time until the last socket of a round had its frame is what counts.
        let wall = if case.paced.is_some() { at_work } else { started.elapsed() };
        Cost { wall, cpu: cpu::of_thread() - cpu_before, backend_cpu: None }
    }
}

impl Send {
    fn send(&mut self, index: usize, buffer: &Bytes) {
        let mut rest = &buffer[..];
        while !rest.is_empty() {
            match rustix::net::send(&self.sockets.ends[index], rest, FLAGS).map_err(io::Error::from) {
                Ok(count) => {
                    self.sent += count as u64;
                    rest = &rest[count..];
                }
                // The kernel takes no more for this connection until the reader has caught up.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.confirm(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("send: {error}"),
            }
        }
        if self.sent - self.confirmed >= UNREAD_BYTES_MAX {
            self.confirm();
        }
    }

    fn confirm(&mut self) {
        self.sockets.await_total(self.sent);
        self.confirmed = self.sent;
    }
}
