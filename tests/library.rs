//! Roomcast inside another program: the same promises without a socket.

#![allow(clippy::unwrap_used)]

#[path = "support/postgres.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests of the server")]
mod postgres;
#[path = "support/temp.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests of the server")]
mod temp;

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use roomcast::config::{DatabaseUrl, Secret};
use roomcast::internals::{CommitSink, NewMessage, Store};
use roomcast::{
    Channel, ClientInfo, Config, Ended, Message, Metrics, Node, Payload, Publication, PublishError,
    ReadError, Seq, Server, StartError, SubscribeError, Subscription, User,
};

use temp::TempDir;

/// Longest wait for anything; reached only when something is broken.
const DEADLINE: Duration = Duration::from_secs(60);

/// The configuration of a node on a fresh SQLite database.
fn config(folder: &TempDir) -> Config {
    let mut config = Config::default();
    config.database.url = DatabaseUrl::Sqlite(folder.0.join("chat.db"));
    config
}

fn lobby() -> Channel {
    "lobby".parse().unwrap()
}

/// Receives up to `last` and checks that no seq is missing, repeated or out of order.
fn hear_until(subscription: &mut Subscription, last: Seq) {
    while subscription.position() < last {
        let expected = subscription.position() + 1;
        let publication = subscription.recv_timeout(DEADLINE).unwrap();
        assert_eq!(publication.seq, expected);
        assert_eq!(publication.data.as_json(), Some(&*format!(r#"{{"n":{expected}}}"#)));
    }
}

fn publish(node: &Node, count: u64) {
    let head = node.subscribe(&lobby(), None).unwrap().position();
    for number in head + 1..=head + count {
        assert_eq!(node.publish(&lobby(), &format!(r#"{{"n":{number}}}"#)), Ok(number));
    }
}

#[test]
fn what_the_program_refuses_is_refused_to_a_program() {
    type Change = fn(&mut Config);
    let folder = TempDir::new();
    let changes: [(Change, &str); 4] = [
        (|config| config.listen = "0.0.0.0:0".parse().unwrap(), "listen: 0.0.0.0:0 can be reached"),
        (|config| config.client.ping_interval = Duration::ZERO, "client.ping_interval: must be between"),
        (|config| config.client.allowed_origins = vec!["*".to_owned()], "client.allowed_origins: "),
        (
            |config| {
                config.listen = "0.0.0.0:0".parse().unwrap();
                config.client.token_hmac_secret = Some(Secret::new("short"));
            },
            "client.token_hmac_secret: is shorter than 32 bytes",
        ),
    ];
    for (change, expected) in changes {
        let mut config = config(&folder);
        config.listen = "127.0.0.1:0".parse().unwrap();
        change(&mut config);
        for refused in [Node::open(&config).map(drop), Server::start(config).map(drop)] {
            let Err(StartError::Config(refusal)) = refused else { panic!("{expected}: {refused:?}") };
            assert!(refusal.to_string().starts_with(expected), "{refusal}");
        }
    }
    assert!(!folder.0.join("chat.db").exists(), "refused before anything is touched");

    let mut config = config(&folder);
    config.listen = "127.0.0.1:0".parse().unwrap();
    config.workers = 0;
    Server::start(config).unwrap().stop();
}

#[test]
fn subscribers_hear_everything_in_order_whenever_they_came() {
    let folder = TempDir::new();
    let node = Node::open(&config(&folder)).unwrap();
    let mut early = node.subscribe(&lobby(), None).unwrap();
    publish(&node, 700);
    let mut late = node.subscribe(&lobby(), Some(3)).unwrap();
    let mut last = node.subscribe(&lobby(), None).unwrap();
    assert_eq!(last.position(), 700);
    publish(&node, 10);
    for subscription in [&mut early, &mut late, &mut last] {
        hear_until(subscription, 710);
    }
    node.stop();
}

/// Takes committed messages and passes them on to nobody.
struct Nobody;

impl CommitSink for Nobody {
    fn committed<'a>(&'a self, _: Vec<Publication>, _: Instant) -> Option<Box<dyn FnOnce() + 'a>> {
        None
    }

    fn forked(&self, _: &Arc<str>) {}
}

fn store(config: &Config) -> Store {
    Store::open(&config.database, Arc::new(Metrics::new())).unwrap()
}

/// Stores messages that differ in every field that a message can have.
fn store_varied(config: &Config, count: u64) {
    let text = |text: String| Some(Arc::from(text));
    let message = |number: u64| {
        let sender = ClientInfo {
            user: format!("user {number}").into(),
            client: format!("client {number}").into(),
            conn_info: if number % 4 > 1 { text(format!(r#"{{"connection":{number}}}"#)) } else { None },
            chan_info: if number % 4 > 2 { text(format!(r#"{{"channel":{number}}}"#)) } else { None },
        };
        NewMessage {
            channel: lobby(),
            auto_create: true,
            data: format!(r#"{{"n":{number}}}"#).into(),
            info: (!number.is_multiple_of(4)).then(|| Arc::new(sender)),
            tags: if number.is_multiple_of(3) { text(format!(r#"{{"tag":"{number}"}}"#)) } else { None },
            key: None,
        }
    };
    let outcomes = store(config).append((1..=count).map(message).collect(), &Arc::new(Nobody));
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
}

fn receive(subscription: &mut Subscription, count: usize) -> Vec<Publication> {
    (0..count).map(|_| subscription.recv_timeout(DEADLINE).unwrap()).collect()
}

/// A message is the same in every field, however it comes.
#[track_caller]
fn assert_same_on_every_way(mut config: Config) {
    const STORED: usize = 24;
    const PUBLISHED: usize = 100;
    config.client.outbox_bytes_max = 2_000;
    store_varied(&config, STORED as u64);
    let node = Node::open(&config).unwrap();
    let recoveries = |way| node.metrics().recoveries_total.with_label_values(&[way]).get();
    let mut slow = node.subscribe(&lobby(), None).unwrap();
    let mut live = node.subscribe(&lobby(), None).unwrap();
    let heard = thread::scope(|scope| {
        let heard = scope.spawn(|| receive(&mut live, PUBLISHED));
        publish(&node, PUBLISHED as u64);
        heard.join().unwrap()
    });
    let all = node.history(&lobby(), 0).unwrap();
    assert_eq!(all.len(), STORED + PUBLISHED);
    assert!(all.iter().all(|publication| publication.created_at_ms > 0));
    assert_eq!(heard, all[STORED..], "live");
    assert!(node.metrics().catch_ups_total.get() > 0, "the budget was not used up");
    assert_eq!(receive(&mut slow, PUBLISHED), all[STORED..], "by catch-up");
    let mut returned = node.subscribe(&lobby(), Some(STORED as u64)).unwrap();
    assert_eq!(receive(&mut returned, PUBLISHED), all[STORED..], "from the tail");
    assert_eq!((recoveries("tail"), recoveries("log")), (1, 0));
    let mut returned = node.subscribe(&lobby(), Some(0)).unwrap();
    assert_eq!(receive(&mut returned, all.len()), all, "from the log");
    assert_eq!((recoveries("tail"), recoveries("log")), (1, 1));
    node.stop();
}

#[test]
fn a_message_has_the_same_fields_live_and_recovered_on_sqlite() {
    let folder = TempDir::new();
    assert_same_on_every_way(config(&folder));
}

#[test]
fn a_message_has_the_same_fields_live_and_recovered_on_postgres() {
    let mut config = Config::default();
    config.database.url = postgres::shared().database().parse().unwrap();
    assert_same_on_every_way(config);
}

#[test]
fn a_subscriber_that_never_reads_keeps_its_budget_alone() {
    let folder = TempDir::new();
    let mut config = config(&folder);
    config.client.outbox_bytes_max = 2_000;
    let node = Node::open(&config).unwrap();
    let mut slow = node.subscribe(&lobby(), None).unwrap();
    let mut fast = node.subscribe(&lobby(), None).unwrap();
    for last in (100..=1_000).step_by(100) {
        publish(&node, 100);
        hear_until(&mut fast, last);
        let queued = node.metrics().outbox_bytes.get();
        assert!((1..=2_000).contains(&queued), "{queued} bytes are queued");
    }
    assert!(node.metrics().catch_ups_total.get() > 0, "its budget was not used up");
    hear_until(&mut slow, 1_000);
    publish(&node, 1);
    hear_until(&mut slow, 1_001);
    node.stop();
}

#[test]
fn a_subscriber_whose_next_messages_are_not_kept_is_told_so() {
    let folder = TempDir::new();
    let mut config = config(&folder);
    config.client.outbox_bytes_max = 2_000;
    let mut short = (*config.namespaces.default).clone();
    short.history_size = 10;
    config.namespaces.default = Arc::new(short);
    let node = Node::open(&config).unwrap();
    let mut slow = node.subscribe(&lobby(), None).unwrap();
    // More than the tail of the room holds.
    publish(&node, 1_000);
    let ended = loop {
        let expected = slow.position() + 1;
        match slow.recv_timeout(DEADLINE) {
            Ok(publication) => assert_eq!(publication.seq, expected),
            Err(ended) => break ended,
        }
    };
    assert_eq!(ended, Ended::Lost);
    assert!((1..990).contains(&slow.position()), "what was queued comes first");
    let mut again = node.subscribe(&lobby(), Some(990)).unwrap();
    hear_until(&mut again, 1_000);
    node.stop();
}

#[test]
fn positions_hold_over_a_restart() {
    let folder = TempDir::new();
    let node = Node::open(&config(&folder)).unwrap();
    let epoch = node.epoch();
    publish(&node, 5);
    node.stop();

    let node = Node::open(&config(&folder)).unwrap();
    assert_eq!(node.epoch(), epoch);
    let mut subscription = node.subscribe(&lobby(), Some(2)).unwrap();
    publish(&node, 1);
    hear_until(&mut subscription, 6);
    node.stop();
}

#[test]
fn a_file_has_one_node_until_that_stops() {
    let folder = TempDir::new();
    let node = Node::open(&config(&folder)).unwrap();
    let subscription = node.subscribe(&lobby(), None).unwrap();
    let refusal = Node::open(&config(&folder)).unwrap_err().to_string();
    assert!(refusal.contains(&format!("the process {} serves it", std::process::id())), "{refusal}");
    publish(&node, 1);
    node.stop();
    // Although a subscription still knows the node.
    let node = Node::open(&config(&folder)).unwrap();
    publish(&node, 1);
    node.stop();
    drop(subscription);
}

#[test]
fn a_callback_runs_until_it_returns_false() {
    let folder = TempDir::new();
    let node = Node::open(&config(&folder)).unwrap();
    let (sender, seqs) = mpsc::channel();
    let subscription = node.subscribe(&lobby(), None).unwrap();
    let thread = subscription
        .for_each(move |publication| {
            sender.send(publication.seq).unwrap();
            publication.seq < 3
        })
        .unwrap();
    publish(&node, 5);
    assert_eq!(thread.join().unwrap(), None);
    assert_eq!(seqs.iter().collect::<Vec<_>>(), [1, 2, 3]);
    node.stop();
}

#[test]
fn a_stopped_node_ends_its_subscriptions() {
    let folder = TempDir::new();
    let node = Node::open(&config(&folder)).unwrap();
    let subscription = node.subscribe(&lobby(), None).unwrap();
    publish(&node, 2);
    let (sender, seqs) = mpsc::channel();
    let thread = subscription.for_each(move |publication| sender.send(publication.seq).is_ok()).unwrap();
    node.stop();
    assert_eq!(thread.join().unwrap(), Some(Ended::Stopped));
    assert_eq!(seqs.iter().collect::<Vec<_>>(), [1, 2], "what was published before the stop is heard");
}

#[test]
fn subscriptions_are_waited_for_together() {
    let folder = TempDir::new();
    let node = Node::open(&config(&folder)).unwrap();
    let other: Channel = "other".parse().unwrap();
    node.publish(&other, "0").unwrap();
    let mut lobby_now = node.subscribe(&lobby(), None).unwrap();
    let mut all_of_other = node.subscribe(&other, Some(0)).unwrap();
    assert_eq!(lobby_now.try_recv(), Err(Ended::TimedOut));
    let mut heard = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..=100 {
                node.publish(&lobby(), &number.to_string()).unwrap();
                node.publish(&other, &number.to_string()).unwrap();
            }
        });
        let (in_lobby, in_other) = (lobby_now.arrivals().clone(), all_of_other.arrivals().clone());
        while heard.len() < 201 {
            // One is taken for each token, so a token must come while there is more.
            let next = crossbeam_channel::select! {
                recv(in_lobby) -> _ => lobby_now.try_recv(),
                recv(in_other) -> _ => all_of_other.try_recv(),
                default(DEADLINE) => panic!("a publication waits and nobody is told"),
            };
            match next {
                Ok(publication) => heard.push((publication.channel, publication.seq)),
                Err(ended) => assert_eq!(ended, Ended::TimedOut),
            }
        }
    });
    let of = |channel: &Channel| -> Vec<Seq> {
        heard.iter().filter(|(in_channel, _)| in_channel == channel).map(|(_, seq)| *seq).collect()
    };
    assert_eq!(of(&lobby()), (1..=100).collect::<Vec<_>>());
    assert_eq!(of(&other), (1..=101).collect::<Vec<_>>());
    let end = lobby_now.arrivals().clone();
    while lobby_now.try_recv().is_ok() || end.try_recv().is_ok() {}
    node.stop();
    end.recv_timeout(DEADLINE).unwrap();
    assert_eq!(lobby_now.try_recv(), Err(Ended::Stopped));
}

#[test]
fn a_subscription_is_closed_from_elsewhere() {
    let folder = TempDir::new();
    let node = Node::open(&config(&folder)).unwrap();
    let mut subscription = node.subscribe(&lobby(), None).unwrap();
    let closer = subscription.closer();
    publish(&node, 3);
    thread::scope(|scope| {
        let (told, heard) = mpsc::channel();
        scope.spawn(move || {
            let seqs: Vec<Seq> =
                (&mut subscription).into_iter().inspect(|_| told.send(()).unwrap()).map(|p| p.seq).collect();
            assert_eq!((seqs, subscription.ended()), (vec![1, 2, 3], Some(Ended::Closed)));
        });
        (0..3).for_each(|_| heard.recv_timeout(DEADLINE).unwrap());
        assert_eq!(node.presence(&lobby()).unwrap().len(), 1);
        closer.close();
        closer.clone().close();
    });
    assert_eq!(node.presence(&lobby()).unwrap(), []);
    publish(&node, 1);
    node.stop();
    closer.close();
}

#[test]
fn a_named_user_sends_and_is_present() {
    let folder = TempDir::new();
    let node = Node::open(&config(&folder)).unwrap();
    let bot = User::new("bot").unwrap().with_info(r#"{ "name": "Bot" }"#.parse().unwrap()).unwrap();
    let mut subscription = node.subscribe_as(&bot, &lobby(), None).unwrap();
    let present = node.presence(&lobby()).unwrap();
    assert_eq!((&*present[0].user, present[0].conn_info.as_deref()), ("bot", Some(r#"{"name":"Bot"}"#)));
    let message = || {
        Message::new(&lobby(), Payload::of(&["hi"]).unwrap()).from(&bot).tag("b", "2").tag("a", "1").once("k")
    };
    assert_eq!(node.send(message()), Ok(1));
    assert_eq!(node.send(message()), Ok(1));
    let heard = subscription.recv_timeout(DEADLINE).unwrap();
    assert_eq!(
        (heard.data.as_json(), heard.tags.as_deref()),
        (Some(r#"["hi"]"#), Some(r#"{"a":"1","b":"2"}"#))
    );
    assert_eq!(&*heard.info.as_ref().unwrap().user, "bot");
    assert_eq!(node.history(&lobby(), 0).unwrap(), [heard]);
    node.stop();
}

#[test]
fn what_nobody_could_read_is_no_payload() {
    for json in ["", "{", "null", " null ", "1 2", r#"{"a":1"#, r#""\u0000"#] {
        assert!(Payload::new(json).is_err(), "{json:?}");
    }
    assert_eq!(Payload::new(" { \"a\" : [ 1 ] } ").unwrap().as_str(), r#"{ "a" : [ 1 ] }"#);
    assert!(Payload::of(&None::<u8>).is_err());
    for id in ["", "a\u{0}", "a\nb", &"u".repeat(1000)] {
        assert!(User::new(id).is_err(), "{id:?}");
    }
    let large = Payload::of(&"x".repeat(100_000)).unwrap();
    assert!(User::new("ann").unwrap().with_info(large).is_err());
}

#[test]
fn history_is_read_by_pages_and_presence_lists_subscribers() {
    let folder = TempDir::new();
    let node = Node::open(&config(&folder)).unwrap();
    publish(&node, 700);
    let (mut read, mut pages) = (Vec::new(), 0);
    loop {
        let page = node.history(&lobby(), read.last().copied().unwrap_or(0)).unwrap();
        if page.is_empty() {
            break;
        }
        read.extend(page.iter().map(|message| message.seq));
        pages += 1;
    }
    assert_eq!((read, pages), ((1..=700).collect::<Vec<Seq>>(), 3));

    assert_eq!(node.presence(&lobby()).unwrap(), []);
    let subscription = node.subscribe(&lobby(), None).unwrap();
    assert_eq!(node.presence(&lobby()).unwrap().len(), 1);
    drop(subscription);
    assert_eq!(node.presence(&lobby()).unwrap(), []);
    node.stop();
}

#[test]
fn refused_operations_return_their_errors() {
    let folder = TempDir::new();
    let node = Node::open(&config(&folder)).unwrap();
    let unknown: Channel = "nobody:home".parse().unwrap();
    assert_eq!(node.publish(&unknown, "1"), Err(PublishError::UnknownNamespace));
    assert_eq!(node.subscribe(&unknown, None).unwrap_err(), SubscribeError::UnknownNamespace);
    assert_eq!(node.history(&unknown, 0), Err(ReadError::UnknownNamespace));
    assert_eq!(node.presence(&unknown), Err(ReadError::UnknownNamespace));
    assert!(matches!(node.publish(&lobby(), "{"), Err(PublishError::Json(_))));
    let large = format!(r#""{}""#, "x".repeat(64 * 1024));
    assert_eq!(node.publish(&lobby(), &large), Err(PublishError::TooLarge));
    assert_eq!(node.subscribe(&lobby(), Some(1)).unwrap_err(), SubscribeError::Unrecoverable);
    assert_eq!(node.publish_once(&lobby(), "1", Some("key")), Ok(1));
    assert_eq!(node.publish_once(&lobby(), "1", Some("key")), Ok(1));
    node.stop();
}

#[test]
fn many_publishers_and_subscribers_at_once() {
    let folder = TempDir::new();
    let node = Node::open(&config(&folder)).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut subscription = node.subscribe(&lobby(), Some(0)).unwrap();
                while subscription.position() < 400 {
                    let expected = subscription.position() + 1;
                    assert_eq!(subscription.recv_timeout(DEADLINE).unwrap().seq, expected);
                }
            });
            scope.spawn(|| {
                for _ in 0..100 {
                    node.publish(&lobby(), "1").unwrap();
                }
            });
        }
    });
    node.stop();
}
