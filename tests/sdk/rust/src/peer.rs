//! Clients and subscriptions, and what happened to them.

use std::fmt::Debug;
use std::time::Duration;

use centrifuge::{
    Client, ClientBuilder, ClientError, ClientInfo, ConnectedEvent, ConnectingEvent, DisconnectedEvent,
    Publication, SubscribedEvent, Subscription, SubscriptionBuilder, SubscriptionError, UnsubscribedEvent,
};
use tokio::sync::mpsc;

use crate::stage::{token, url};

/// Longest wait for anything; only a broken server makes one wait for so long.
const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

/// Events of one kind, in order.
pub(crate) struct Events<T> {
    kind: &'static str,
    queue: mpsc::UnboundedReceiver<T>,
}

impl<T> Events<T> {
    fn new(kind: &'static str) -> (Self, impl Fn(T) + Send + 'static)
    where
        T: Send + Debug + 'static,
    {
        let (sender, queue) = mpsc::unbounded_channel();
        // Nobody waits when the test is over.
        (Self { kind, queue }, move |event| drop(sender.send(event)))
    }

    pub(crate) async fn next(&mut self) -> T {
        within(self.kind, self.queue.recv()).await.expect("the client lives")
    }

    pub(crate) fn none_waits(&self) -> bool {
        self.queue.is_empty()
    }
}

/// A builder for a client with a token of the backend.
pub(crate) fn named(user: &str) -> ClientBuilder {
    client(&url()).token(token(&format!("user={user}")))
}

/// A builder with the default settings, but that it comes back sooner.
pub(crate) fn client(url: &str) -> ClientBuilder {
    Client::builder(url)
        .min_reconnect_delay(Duration::from_millis(20))
        .max_reconnect_delay(Duration::from_millis(200))
}

pub(crate) struct Peer {
    pub(crate) client: Client,
    pub(crate) connected: Events<ConnectedEvent>,
    pub(crate) connecting: Events<ConnectingEvent>,
    pub(crate) disconnected: Events<DisconnectedEvent>,
    pub(crate) errors: Events<ClientError>,
    /// Of server-side subscriptions.
    pub(crate) publications: Events<Publication>,
}

impl Peer {
    /// A client that tries to be let in.
    pub(crate) fn start(builder: ClientBuilder) -> Self {
        let (connected, on_connected) = Events::new("connected");
        let (connecting, on_connecting) = Events::new("connecting");
        let (disconnected, on_disconnected) = Events::new("disconnected");
        let (errors, on_error) = Events::new("error");
        let (publications, on_publication) = Events::new("publication of the server's subscription");
        let client = builder
            .on_connected(move |_, event| on_connected(event))
            .on_connecting(move |_, event| on_connecting(event))
            .on_disconnected(move |_, event| on_disconnected(event))
            .on_error(move |_, event| on_error(event.error))
            .on_publication(move |_, event| on_publication(event.publication))
            .build()
            .expect("a client");
        client.connect().expect("not closed");
        Self { client, connected, connecting, disconnected, errors, publications }
    }

    /// A client that was let in.
    pub(crate) async fn connect(builder: ClientBuilder) -> Self {
        let mut peer = Self::start(builder);
        peer.connected.next().await;
        peer
    }

    /// A subscription that is asked for.
    pub(crate) fn seat(
        &self,
        channel: &str,
        options: impl FnOnce(SubscriptionBuilder) -> SubscriptionBuilder,
    ) -> Seat {
        let (subscribed, on_subscribed) = Events::new("subscribed");
        let (unsubscribed, on_unsubscribed) = Events::new("unsubscribed");
        let (publications, on_publication) = Events::new("publication");
        let (joins, on_join) = Events::new("join");
        let (leaves, on_leave) = Events::new("leave");
        let (errors, on_error) = Events::new("error of a subscription");
        let sub = options(self.client.new_subscription(channel))
            .on_subscribed(move |_, event| on_subscribed(event))
            .on_unsubscribed(move |_, event| on_unsubscribed(event))
            .on_publication(move |_, event| on_publication(event.publication))
            .on_join(move |_, event| on_join(event.info))
            .on_leave(move |_, event| on_leave(event.info))
            .on_error(move |_, event| on_error(event.error))
            .build()
            .expect("a subscription");
        sub.subscribe();
        Seat { sub, subscribed, unsubscribed, publications, joins, leaves, errors }
    }

    /// A subscription that stands.
    pub(crate) async fn subscribe(&self, channel: &str) -> Seat {
        let mut seat = self.seat(channel, |builder| builder);
        seat.subscribed.next().await;
        seat
    }

    /// The client never had to connect again, and nothing went wrong.
    pub(crate) async fn assert_stayed(&mut self) {
        self.connecting.next().await;
        assert!(self.connecting.none_waits() && self.errors.none_waits());
    }
}

pub(crate) struct Seat {
    pub(crate) sub: Subscription,
    pub(crate) subscribed: Events<SubscribedEvent>,
    pub(crate) unsubscribed: Events<UnsubscribedEvent>,
    pub(crate) publications: Events<Publication>,
    pub(crate) joins: Events<ClientInfo>,
    pub(crate) leaves: Events<ClientInfo>,
    pub(crate) errors: Events<SubscriptionError>,
}

impl Seat {
    pub(crate) async fn publish(&self, data: &str) {
        self.sub.publish(data.to_owned()).await.expect("the publish is acknowledged");
    }
}
