//! Who connects: every client of a plan, and which thread drives it.

use crate::plan::Plan;

/// A client that is still to connect: what it is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    /// Its number in the whole run.
    pub(crate) number: usize,
    pub(crate) group: usize,
    /// The room it listens to, if it does.
    pub(crate) room: Option<usize>,
    /// Its number among the publishers of its group, if it publishes.
    pub(crate) publisher: Option<usize>,
}

/// The clients of one thread.
#[derive(Debug, Default)]
pub(crate) struct Share {
    pub(crate) clients: Vec<Client>,
    /// It runs only on processors that are idle, so that the server goes first.
    pub(crate) has_low_priority: bool,
}

impl Share {
    pub(crate) fn publishes(&self) -> bool {
        self.clients.iter().any(|client| client.publisher.is_some())
    }
}

/// Spreads the clients of a plan over its threads.
///
/// When a plan says how fast messages come, one thread publishes, on time, and the others listen, those
/// of each group to their own: where messages pile up before they are read, only the last one's stamp
/// is left, and a crowd that reads late shall not be the small rooms' delay. When acknowledgements set
/// the pace, threads do both: publishers that do not read deliveries would run away from the
/// listeners, and what came of it would be a queue and not a measure.
pub(crate) fn shares(plan: &Plan) -> Vec<Share> {
    let (listeners, publishers) =
        clients(plan).into_iter().partition::<Vec<_>, _>(|client| client.publisher.is_none());
    let paced = plan.is_paced();
    let mut shares: Vec<Share> = Vec::new();
    shares.resize_with(plan.listening_threads(), || Share { has_low_priority: paced, ..Share::default() });
    for (number, client) in listeners.into_iter().enumerate() {
        let of_group = if paced { client.group * plan.threads } else { 0 };
        shares[of_group + number % plan.threads].clients.push(client);
    }
    if paced {
        shares.push(Share { clients: publishers, has_low_priority: false });
    } else {
        for (number, client) in publishers.into_iter().enumerate() {
            shares[number % plan.threads].clients.push(client);
        }
    }
    shares
}

/// Everybody in a plan; who only publishes has the later numbers, so that they find all listeners there.
fn clients(plan: &Plan) -> Vec<Client> {
    let mut clients = Vec::new();
    for (group, shape) in plan.groups.iter().enumerate() {
        for listener in 0..shape.listeners {
            let (number, room) = (clients.len(), Some(listener % shape.rooms));
            let publishes = shape.publishers_listen && listener < shape.publishers;
            clients.push(Client { number, group, room, publisher: publishes.then_some(listener) });
        }
    }
    for (group, shape) in plan.groups.iter().enumerate().filter(|(_, shape)| !shape.publishers_listen) {
        for publisher in 0..shape.publishers {
            let number = clients.len();
            clients.push(Client { number, group, room: None, publisher: Some(publisher) });
        }
    }
    clients
}
