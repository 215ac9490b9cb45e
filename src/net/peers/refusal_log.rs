//! The log lines about refusals: for each limit one when it is reached and one when it is over.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::limit_log::{LimitLine, LimitLog};
use super::refusal::Refusal;
use crate::sync::{Mutex, lock};

/// Each is told by itself, so that none hides another.
#[derive(Debug, Default)]
pub(super) struct RefusalLog {
    places: Mutex<LimitLog>,
    stranger_bytes: Mutex<LimitLog>,
    /// Of any address: a flood from many would be a flood of lines.
    addresses: Mutex<LimitLog>,
}

impl RefusalLog {
    /// Somebody of this address was refused; `connections_max` is for the reader.
    pub(super) fn refused(&self, refusal: Refusal, address: IpAddr, connections_max: usize, now: Instant) {
        let lines = lock(self.of(refusal)).refused(now);
        for line in lines.into_iter().flatten() {
            match line {
                LimitLine::Reached => reached(refusal, address, connections_max),
                LimitLine::Left { refused, lasted } => left(refusal, refused, lasted),
            }
        }
    }

    /// Tells which limits are over; the moment at which to look again.
    pub(super) fn check(&self, now: Instant) -> Option<Instant> {
        let each = [Refusal::Full, Refusal::StrangerBytes, Refusal::AddressSockets];
        let due = each.map(|refusal| {
            let mut log = lock(self.of(refusal));
            let (line, due) = (log.check(now), log.due());
            drop(log);
            if let Some(LimitLine::Left { refused, lasted }) = line {
                left(refusal, refused, lasted);
            }
            due
        });
        due.into_iter().flatten().min()
    }

    fn of(&self, refusal: Refusal) -> &Mutex<LimitLog> {
        match refusal {
            Refusal::Full | Refusal::FullOfClients => &self.places,
            Refusal::StrangerBytes => &self.stranger_bytes,
            Refusal::AddressSockets | Refusal::AddressRate | Refusal::AddressStrangers => &self.addresses,
        }
    }
}

fn reached(refusal: Refusal, address: IpAddr, connections_max: usize) {
    let limit = refusal.as_str();
    match refusal {
        Refusal::Full | Refusal::FullOfClients => tracing::warn!(
            limit,
            connections_max,
            "the server is full: new connections are refused; see docs/operations.md on system limits"
        ),
        Refusal::StrangerBytes => tracing::warn!(
            limit,
            "those who have not connected hold as many bytes as they may: some are refused; see \
             client.strangers_bytes_max"
        ),
        Refusal::AddressSockets | Refusal::AddressRate | Refusal::AddressStrangers => tracing::warn!(
            limit,
            %address,
            "connections of one address are refused; if it is a proxy, name it in client.trusted_proxies"
        ),
    }
}

fn left(refusal: Refusal, refused: u64, lasted: Duration) {
    match refusal {
        Refusal::Full | Refusal::FullOfClients => {
            tracing::info!(refused, ?lasted, "the server takes new connections again");
        }
        Refusal::StrangerBytes => {
            tracing::info!(refused, ?lasted, "there are bytes for those who have not connected again");
        }
        Refusal::AddressSockets | Refusal::AddressRate | Refusal::AddressStrangers => {
            tracing::info!(refused, ?lasted, "no connection was refused because of its address for a while");
        }
    }
}
