//! Who connects: every client of a plan, and which thread drives it.

use crate::plan::Plan;

/// A client that is still to connect: its number in the whole run, and what it is for.
#[derive(Debug)]
pub(crate) enum Client {
    Listener {
        number: usize,
        group: usize,
        room: usize,
    },
    /// `place` is its number among the publishers of its group.
    Publisher {
        number: usize,
        group: usize,
        place: usize,
    },
}

/// The clients of one thread.
#[derive(Debug, Default)]
pub(crate) struct Share {
    pub(crate) clients: Vec<Client>,
    /// The server may have the processor before this thread.
    pub(crate) steps_back: bool,
}

impl Client {
    pub(crate) fn number(&self) -> usize {
        match *self {
            Self::Listener { number, .. } | Self::Publisher { number, .. } => number,
        }
    }

    fn group(&self) -> usize {
        match *self {
            Self::Listener { group, .. } | Self::Publisher { group, .. } => group,
        }
    }
}

impl Share {
    pub(crate) fn publishes(&self) -> bool {
        self.clients.iter().any(|client| matches!(client, Client::Publisher { .. }))
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
    let (listeners, publishers) = clients(plan);
    let paced = plan.is_paced();
    let mut shares: Vec<Share> = Vec::new();
    shares.resize_with(plan.listening_threads(), || Share { steps_back: paced, ..Share::default() });
    for (number, client) in listeners.into_iter().enumerate() {
        let of_group = if paced { client.group() * plan.threads } else { 0 };
        shares[of_group + number % plan.threads].clients.push(client);
    }
    if paced {
        shares.push(Share { clients: publishers, steps_back: false });
    } else {
        for (number, client) in publishers.into_iter().enumerate() {
            shares[number % plan.threads].clients.push(client);
        }
    }
    shares
}

/// The listeners and the publishers of a plan; publishers have the later numbers, so that they find all
/// listeners there.
fn clients(plan: &Plan) -> (Vec<Client>, Vec<Client>) {
    let (mut listeners, mut publishers) = (Vec::new(), Vec::new());
    for (group, shape) in plan.groups.iter().enumerate() {
        for listener in 0..shape.listeners {
            let room = listener % shape.rooms;
            listeners.push(Client::Listener { number: listeners.len(), group, room });
        }
    }
    for (group, shape) in plan.groups.iter().enumerate() {
        for place in 0..shape.publishers {
            let number = listeners.len() + publishers.len();
            publishers.push(Client::Publisher { number, group, place });
        }
    }
    (listeners, publishers)
}
