//! Publishing inside an application's own transaction: what the messages of a node promise holds for these too, on
//! both databases, however the transaction ends.

#![allow(clippy::unwrap_used)]

#[path = "support/postgres.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests of the server")]
mod postgres;
#[path = "support/temp.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests of the server")]
mod temp;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use roomcast::config::DatabaseUrl;
use roomcast::{
    AppendError, Channel, Config, DatabaseConnection, Message, Node, Payload, PublishError, PublishInError,
    Seq, Subscription, Unsent, User,
};

use temp::TempDir;

/// Longest wait for anything; reached only when something is broken.
const DEADLINE: Duration = Duration::from_secs(60);

/// Time in which something would have happened that must not.
const MOMENT: Duration = Duration::from_millis(300);

/// An error of the application's, or of a call.
#[derive(Debug)]
#[allow(dead_code, reason = "shown when a test fails")]
enum Failed {
    OnPurpose,
    Publish(PublishInError),
    Database(diesel::result::Error),
}

impl From<diesel::result::Error> for Failed {
    fn from(error: diesel::result::Error) -> Self {
        Self::Database(error)
    }
}

impl From<PublishInError> for Failed {
    fn from(error: PublishInError) -> Self {
        Self::Publish(error)
    }
}

/// An application's connection.
trait Application: DatabaseConnection + SimpleConnection + Sized + Send + 'static {
    fn connect(url: &str) -> Self;

    /// Runs `work` in a transaction that may write.
    fn writing<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, Failed>) -> Result<T, Failed>;

    fn count_orders(&mut self) -> i64;
}

const ORDERS: &str = "SELECT count(*) FROM orders";

impl Application for SqliteConnection {
    fn connect(url: &str) -> Self {
        let mut connection = Self::establish(url.strip_prefix("sqlite:").unwrap()).unwrap();
        connection.batch_execute("PRAGMA busy_timeout = 60000").unwrap();
        connection
    }

    fn writing<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, Failed>) -> Result<T, Failed> {
        self.immediate_transaction(work)
    }

    fn count_orders(&mut self) -> i64 {
        diesel::dsl::sql::<BigInt>(ORDERS).get_result(self).unwrap()
    }
}

impl Application for PgConnection {
    fn connect(url: &str) -> Self {
        Self::establish(url).unwrap()
    }

    fn writing<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, Failed>) -> Result<T, Failed> {
        self.transaction(work)
    }

    fn count_orders(&mut self) -> i64 {
        diesel::dsl::sql::<BigInt>(ORDERS).get_result(self).unwrap()
    }
}

/// A node, and the URL of its database for the application.
struct Rig {
    node: Node,
    url: String,
    folder: TempDir,
}

impl Rig {
    fn sqlite() -> Self {
        let folder = TempDir::new();
        Self::new(format!("sqlite:{}", folder.0.join("chat.db").display()), folder)
    }

    fn postgres() -> Self {
        Self::new(postgres::shared().database(), TempDir::new())
    }

    fn new(url: String, folder: TempDir) -> Self {
        Self { node: Node::open(&config(&url)).unwrap(), url, folder }
    }

    /// A connection of the application, which has a table of its own.
    fn connect<C: Application>(&self) -> C {
        let mut connection = C::connect(&self.url);
        connection.batch_execute("CREATE TABLE IF NOT EXISTS orders (id BIGINT NOT NULL)").unwrap();
        connection
    }
}

fn config(url: &str) -> Config {
    let mut config =
        Config::from_toml("test.toml", "[namespace.fleeting]\npersist = false\n").unwrap().config;
    config.database.url = url.parse::<DatabaseUrl>().unwrap();
    config
}

fn room(name: &str) -> Channel {
    name.parse().unwrap()
}

fn message(room_name: &str, data: &str) -> Message {
    Message::new(&room(room_name), Payload::new(data).unwrap())
}

/// Publishes by a lane, again while a lock is held for too long: on a machine that is busy a short transaction may be.
fn publish(node: &Node, room_name: &str, data: &str) -> Seq {
    let key = format!("lane {data}");
    loop {
        match node.publish_once(&room(room_name), data, Some(&key)) {
            Ok(seq) => return seq,
            Err(PublishError::Store(AppendError::Unavailable)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Inserts an order and publishes a message, and ends as told.
fn order<C: Application>(
    node: &Node,
    connection: &mut C,
    message: Message,
    end: Result<(), Failed>,
) -> Result<Unsent, Failed> {
    connection.writing(|connection| {
        connection.batch_execute("INSERT INTO orders (id) VALUES (1)")?;
        let unsent = node.publish_in(connection, [message])?;
        end.map(|()| unsent)
    })
}

#[track_caller]
fn expect(subscription: &mut Subscription, seq: Seq, data: &str) {
    let heard = subscription.recv_timeout(DEADLINE).unwrap();
    assert_eq!((heard.seq, heard.data.as_json()), (seq, Some(data)));
    assert!(heard.created_at_ms > 0);
}

/// Two tests of one body: an application on SQLite, and one on PostgreSQL.
macro_rules! on_both_databases {
    ($($name:ident),+) => {$(
        mod $name {
            #[test]
            fn on_sqlite() {
                super::bodies::$name::<diesel::SqliteConnection>(&super::Rig::sqlite());
            }

            #[test]
            fn on_postgres() {
                super::bodies::$name::<diesel::PgConnection>(&super::Rig::postgres());
            }
        }
    )+};
}

on_both_databases!(
    a_committed_message_is_heard_with_its_rows,
    a_message_given_up_was_never_there,
    a_panic_gives_up,
    nobody_has_to_pass_on,
    a_listener_that_comes_meanwhile_misses_nothing,
    numbers_are_dense_whoever_gives_them,
    a_key_holds_on_every_way,
    a_slow_transaction_is_waited_for,
    a_refused_message_leaves_the_transaction_as_it_was,
    who_waits_crosswise_is_told_so,
    a_process_that_dies_loses_nothing,
    open_transactions_are_counted
);

mod bodies {
    use super::*;

    pub(super) fn open_transactions_are_counted<C: Application>(rig: &Rig) {
        let (node, mut connection) = (&rig.node, rig.connect::<C>());
        let await_open = |count: usize| {
            let line = format!("roomcast_foreign_pending {count}\n");
            let began = Instant::now();
            while !node.metrics().render().contains(&line) {
                assert!(began.elapsed() < DEADLINE, "{}", node.metrics().render());
                thread::sleep(Duration::from_millis(5));
            }
        };
        for end in [Ok(()), Err(Failed::OnPurpose)] {
            let _ = connection.writing(|connection| {
                let rooms = ["a", "b", "c", "b"].map(|name| message(name, "1"));
                drop(node.publish_in(connection, rooms)?);
                // The rooms, looked at and found open.
                await_open(3);
                thread::sleep(MOMENT);
                await_open(3);
                end
            });
            await_open(0);
        }
        assert_eq!(node.history(&room("b"), 0).unwrap().len(), 2);
    }

    pub(super) fn a_committed_message_is_heard_with_its_rows<C: Application>(rig: &Rig) {
        let (node, mut connection) = (&rig.node, rig.connect::<C>());
        let mut live = node.subscribe(&room("orders"), None).unwrap();
        let ann = User::new("ann").unwrap().with_info(Payload::new(r#"{"n":1}"#).unwrap()).unwrap();
        let sent = message("orders", r#"{"o":1}"#).from(&ann).tag("kind", "tea");
        let unsent = connection
            .writing(|connection| {
                let unsent =
                    node.publish_in(connection, [sent, message("other", "1"), message("orders", "2")])?;
                assert_eq!(unsent.seqs(), [1, 1, 2]);
                assert_eq!(node.history(&room("orders"), 0).unwrap(), [], "it is not committed");
                Ok(unsent)
            })
            .unwrap();
        assert!(unsent.pass_on());
        let heard = live.recv_timeout(DEADLINE).unwrap();
        let info = heard.info.clone().unwrap();
        assert_eq!((heard.seq, heard.data.as_json(), &*info.user), (1, Some(r#"{"o":1}"#), "ann"));
        assert_eq!(
            (heard.tags.as_deref(), info.conn_info.as_deref()),
            (Some(r#"{"kind":"tea"}"#), Some(r#"{"n":1}"#))
        );
        expect(&mut live, 2, "2");
        assert_eq!(node.history(&room("orders"), 0).unwrap()[0], heard);
        assert!(order(node, &mut connection, message("orders", "3"), Ok(())).unwrap().pass_on());
        expect(&mut live, 3, "3");
        assert_eq!(connection.count_orders(), 1);
        assert_eq!(node.publish(&room("orders"), "4"), Ok(4));
        expect(&mut live, 4, "4");
        assert_eq!(node.metrics().catch_ups_total.get(), 0, "they came from memory");
    }

    pub(super) fn a_message_given_up_was_never_there<C: Application>(rig: &Rig) {
        let (node, mut connection) = (&rig.node, rig.connect::<C>());
        let mut live = node.subscribe(&room("orders"), None).unwrap();
        node.publish(&room("orders"), "1").unwrap();
        let mut kept = None;
        let ended: Result<(), Failed> = connection.writing(|connection| {
            kept = Some(node.publish_in(connection, [message("orders", r#""never""#)])?);
            Err(Failed::OnPurpose)
        });
        assert!(matches!(ended, Err(Failed::OnPurpose)));
        let kept = kept.unwrap();
        assert_eq!(kept.seqs(), [2]);
        assert!(!kept.pass_on(), "there is nothing to pass on");
        assert!(order(node, &mut connection, message("orders", "2"), Err(Failed::OnPurpose)).is_err());
        assert_eq!(node.publish(&room("orders"), "2"), Ok(2));
        expect(&mut live, 1, "1");
        expect(&mut live, 2, "2");
        assert_eq!(node.history(&room("orders"), 0).unwrap().len(), 2);
        assert_eq!(connection.count_orders(), 0);
    }

    pub(super) fn a_panic_gives_up<C: Application>(rig: &Rig) {
        let (node, connection) = (&rig.node, rig.connect::<C>());
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let mut connection = connection;
            connection.writing(|connection| -> Result<(), Failed> {
                let _unsent = node.publish_in(connection, [message("orders", r#""never""#)])?;
                panic!("the application panics on purpose");
            })
        }));
        assert!(panicked.is_err());
        let mut all = node.subscribe(&room("orders"), Some(0)).unwrap();
        assert_eq!(publish(node, "orders", "1"), 1);
        expect(&mut all, 1, "1");
    }

    pub(super) fn nobody_has_to_pass_on<C: Application>(rig: &Rig) {
        let (node, mut connection) = (&rig.node, rig.connect::<C>());
        let mut live = node.subscribe(&room("orders"), None).unwrap();
        // Lost: not even dropped.
        std::mem::forget(order(node, &mut connection, message("orders", "1"), Ok(())).unwrap());
        expect(&mut live, 1, "1");
        // Dropped while the transaction is open.
        connection
            .writing(|connection| {
                drop(node.publish_in(connection, [message("orders", "2")])?);
                assert!(live.recv_timeout(MOMENT).is_err(), "it is not committed");
                Ok(())
            })
            .unwrap();
        expect(&mut live, 2, "2");
        // After one that was given up the thread looks at the next.
        drop(order(node, &mut connection, message("orders", r#""never""#), Err(Failed::OnPurpose)));
        drop(order(node, &mut connection, message("orders", "3"), Ok(())).unwrap());
        expect(&mut live, 3, "3");
    }

    pub(super) fn a_listener_that_comes_meanwhile_misses_nothing<C: Application>(rig: &Rig) {
        let (node, mut connection) = (&rig.node, rig.connect::<C>());
        let mut came = Vec::new();
        for number in 1..=20 {
            let unsent =
                order(node, &mut connection, message("orders", &number.to_string()), Ok(())).unwrap();
            came.push((number, node.subscribe(&room("orders"), None).unwrap()));
            drop(unsent);
        }
        assert_eq!(node.publish(&room("orders"), "21"), Ok(21));
        for (number, mut subscription) in came {
            // It saw the commit before it came, so it starts behind it or is given it now.
            assert!(
                (number - 1..=number).contains(&subscription.position()) || subscription.position() <= 21
            );
            while subscription.position() < 21 {
                let next = subscription.position() + 1;
                expect(&mut subscription, next, &next.to_string());
            }
        }
    }

    pub(super) fn numbers_are_dense_whoever_gives_them<C: Application>(rig: &Rig) {
        const EACH: u64 = 40;
        let node = &rig.node;
        let rooms = ["a", "b"];
        let said: Mutex<BTreeMap<(usize, Seq), String>> = Mutex::default();
        let say = |room: usize, seq: Seq, data: &str| {
            assert_eq!(said.lock().unwrap().insert((room, seq), data.to_owned()), None, "given twice");
        };
        let mut listeners: Vec<_> = rooms.map(|name| node.subscribe(&room(name), None).unwrap()).into();
        thread::scope(|scope| {
            for writer in 0..2_u64 {
                let say = &say;
                scope.spawn(move || {
                    for number in 0..EACH {
                        let (at, data) = ((number % 2) as usize, format!(r#""lane {writer} {number}""#));
                        say(at, publish(node, rooms[at], &data), &data);
                    }
                });
                scope.spawn(move || {
                    let mut connection = rig.connect::<C>();
                    for number in 0..EACH {
                        let data = rooms.map(|name| format!(r#""{name} {writer} {number}""#));
                        let gives_up = number % 5 == 4;
                        let mut once = || {
                            let messages = [message("a", &data[0]), message("b", &data[1])];
                            connection.writing(|connection| {
                                let unsent = node.publish_in(connection, messages)?;
                                if gives_up { Err(Failed::OnPurpose) } else { Ok(unsent) }
                            })
                        };
                        let done = loop {
                            match once() {
                                Err(Failed::Publish(PublishInError::Database(_))) => {}
                                done => break done,
                            }
                        };
                        match done {
                            Ok(unsent) => {
                                (0..2).for_each(|at| say(at, unsent.seqs()[at], &data[at]));
                                // Some are passed on, some are left to the node.
                                assert!(number % 2 == 0 || unsent.pass_on());
                            }
                            Err(Failed::OnPurpose) => assert!(gives_up),
                            Err(failed) => panic!("{failed:?}"),
                        }
                    }
                });
            }
        });
        let said = said.into_inner().unwrap();
        for (at, listener) in listeners.iter_mut().enumerate() {
            let count = said.keys().filter(|(room, _)| *room == at).count() as u64;
            assert_eq!(count, EACH + 2 * EACH * 4 / 5);
            for seq in 1..=count {
                expect(listener, seq, &said[&(at, seq)]);
            }
        }
        assert_eq!(node.metrics().history_forks_total.get(), 0);
    }

    pub(super) fn a_key_holds_on_every_way<C: Application>(rig: &Rig) {
        let (node, mut connection) = (&rig.node, rig.connect::<C>());
        let keyed = |data: &str| message("orders", data).once("order-7");
        let first = order(node, &mut connection, keyed("1"), Ok(())).unwrap();
        assert_eq!(first.seqs(), [1]);
        assert!(first.pass_on());
        assert_eq!(node.publish_once(&room("orders"), "1", Some("order-7")), Ok(1));
        let again = order(node, &mut connection, keyed("1"), Ok(())).unwrap();
        assert_eq!(again.seqs(), [1], "the same message");
        let other = order(node, &mut connection, keyed("2"), Ok(()));
        let taken = |error: &PublishInError| {
            matches!(error, PublishInError::Refused(PublishError::Store(AppendError::KeyTaken)))
        };
        assert!(matches!(&other, Err(Failed::Publish(error)) if taken(error)), "{other:?}");
        assert_eq!(node.publish_once(&room("orders"), "5", Some("order-8")), Ok(2));
        let after = order(node, &mut connection, message("orders", "5").once("order-8"), Ok(())).unwrap();
        assert_eq!(after.seqs(), [2]);
        assert_eq!(node.history(&room("orders"), 0).unwrap().len(), 2);
    }

    pub(super) fn a_slow_transaction_is_waited_for<C: Application>(rig: &Rig) {
        let (node, mut connection) = (&rig.node, rig.connect::<C>());
        let mut live = node.subscribe(&room("orders"), None).unwrap();
        node.publish(&room("orders"), "1").unwrap();
        thread::scope(|scope| {
            let (sender, answers) = mpsc::channel();
            let unsent = connection
                .writing(|connection| {
                    let unsent = node.publish_in(connection, [message("orders", "2")])?;
                    scope.spawn(move || sender.send(publish(node, "orders", "3")).unwrap());
                    assert!(
                        answers.recv_timeout(MOMENT).is_err(),
                        "it has a number before the other has ended"
                    );
                    Ok(unsent)
                })
                .unwrap();
            assert_eq!(answers.recv_timeout(DEADLINE).unwrap(), 3);
            assert!(unsent.pass_on());
        });
        (1..=3).for_each(|seq| expect(&mut live, seq, &seq.to_string()));
    }

    pub(super) fn a_refused_message_leaves_the_transaction_as_it_was<C: Application>(rig: &Rig) {
        let (node, mut connection) = (&rig.node, rig.connect::<C>());
        assert!(matches!(
            node.publish_in(&mut connection, [message("orders", "1")]),
            Err(PublishInError::NotInTransaction)
        ));
        let large = format!(r#""{}""#, "x".repeat(64 * 1024));
        let refusals = connection
            .writing(|connection| {
                let mut refused = |messages: [Message; 2]| node.publish_in(connection, messages).unwrap_err();
                let good = || message("orders", r#""never""#);
                Ok([
                    refused([good(), message("orders", &large)]),
                    refused([good(), message("nobody:home", "1")]),
                    refused([good(), message("fleeting:room", "1")]),
                    refused([good().once("key"), message("orders", "2").once("key")]),
                ])
            })
            .unwrap();
        assert!(matches!(
            refusals,
            [
                PublishInError::Refused(PublishError::TooLarge),
                PublishInError::Refused(PublishError::UnknownNamespace),
                PublishInError::NotStored,
                PublishInError::Refused(PublishError::Store(AppendError::KeyTaken)),
            ]
        ));
        let unsent = connection
            .writing(|connection| {
                let failed = node.publish_in(connection, [message("nobody:home", "1")]);
                assert!(failed.is_err());
                connection.batch_execute("INSERT INTO orders (id) VALUES (1)")?;
                Ok(node.publish_in(connection, [message("orders", "1")])?)
            })
            .unwrap();
        assert_eq!((unsent.seqs(), connection.count_orders()), (&[1][..], 1));
        assert_eq!(node.history(&room("orders"), 0).unwrap().len(), 1);
    }

    /// Two transactions with two rooms in the other order: one of them may be refused, neither hangs, and the lanes
    /// go on.
    pub(super) fn who_waits_crosswise_is_told_so<C: Application>(rig: &Rig) {
        let node = &rig.node;
        node.publish(&room("a"), "0").unwrap();
        node.publish(&room("b"), "0").unwrap();
        let both = |names: [&'static str; 2]| {
            let mut connection = rig.connect::<C>();
            move || {
                for _ in 0..10 {
                    let done = connection.writing(|connection| {
                        let first = node.publish_in(connection, [message(names[0], "1")])?;
                        Ok((first, node.publish_in(connection, [message(names[1], "1")])?))
                    });
                    assert!(
                        matches!(&done, Ok(_) | Err(Failed::Publish(PublishInError::Database(_)))),
                        "{done:?}"
                    );
                }
            }
        };
        thread::scope(|scope| {
            scope.spawn(both(["a", "b"]));
            scope.spawn(both(["b", "a"]));
        });
        for name in ["a", "b"] {
            let seq = publish(node, name, "2");
            let mut all = node.subscribe(&room(name), Some(0)).unwrap();
            (1..=seq).for_each(|seq| assert_eq!(all.recv_timeout(DEADLINE).unwrap().seq, seq));
        }
    }

    /// The application and its node die between the commit and the passing on, and before the commit.
    pub(super) fn a_process_that_dies_loses_nothing<C: Application>(rig: &Rig) {
        // The node of the rig would keep the file.
        let folder = TempDir::new();
        let url = match rig.url.strip_prefix("sqlite:") {
            Some(_) => format!("sqlite:{}", folder.0.join("other.db").display()),
            None => postgres::shared().database(),
        };
        for (when, expected) in [("after", 1), ("before", 1), ("after", 2)] {
            let died = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "dies", "--nocapture"])
                .env("ROOMCAST_TEST_URL", &url)
                .env("ROOMCAST_TEST_DIE", when)
                .status()
                .unwrap();
            assert!(!died.success(), "it was to die");
            let node = Node::open(&config(&url)).unwrap();
            let mut all = node.subscribe(&room("orders"), Some(0)).unwrap();
            (1..=expected).for_each(|seq| expect(&mut all, seq, r#""of a dead process""#));
            assert_eq!(node.history(&room("orders"), 0).unwrap().len(), expected as usize);
            node.stop();
        }
        let node = Node::open(&config(&url)).unwrap();
        assert_eq!(node.publish(&room("orders"), "3"), Ok(3));
        node.stop();
    }
}

/// What [`bodies::a_process_that_dies_loses_nothing`] runs in a process of its own.
#[test]
fn dies() {
    let Ok(url) = std::env::var("ROOMCAST_TEST_URL") else { return };
    let node = Node::open(&config(&url)).unwrap();
    if url.starts_with("sqlite:") {
        die::<SqliteConnection>(&node, &url);
    } else {
        die::<PgConnection>(&node, &url);
    }
}

fn die<C: Application>(node: &Node, url: &str) {
    let before_commit = std::env::var("ROOMCAST_TEST_DIE").unwrap() == "before";
    let unsent = C::connect(url).writing(|connection| {
        let unsent = node.publish_in(connection, [message("orders", r#""of a dead process""#)])?;
        if before_commit {
            std::process::abort();
        }
        Ok(unsent)
    });
    std::mem::forget(unsent.unwrap());
    std::process::abort();
}

#[test]
fn another_file_is_refused_and_one_that_commits_less_durably() {
    let (rig, other) = (Rig::sqlite(), Rig::sqlite());
    let mut connection = other.connect::<SqliteConnection>();
    let refused = order(&rig.node, &mut connection, message("orders", "1"), Ok(()));
    assert!(matches!(refused, Err(Failed::Publish(PublishInError::OtherDatabase))), "{refused:?}");
    // A copy has the same epoch.
    std::fs::copy(rig.folder.0.join("chat.db"), rig.folder.0.join("copy.db")).unwrap();
    let mut copy = SqliteConnection::connect(&format!("sqlite:{}", rig.folder.0.join("copy.db").display()));
    let refused = copy.writing(|copy| Ok(rig.node.publish_in(copy, [message("orders", "1")])?));
    assert!(matches!(refused, Err(Failed::Publish(PublishInError::OtherDatabase))), "{refused:?}");

    let mut connection = rig.connect::<SqliteConnection>();
    connection.batch_execute("PRAGMA synchronous = NORMAL").unwrap();
    let refused = order(&rig.node, &mut connection, message("orders", "1"), Ok(()));
    assert!(matches!(refused, Err(Failed::Publish(PublishInError::NotDurable))), "{refused:?}");
    connection.batch_execute("PRAGMA synchronous = FULL").unwrap();
    assert!(order(&rig.node, &mut connection, message("orders", "1"), Ok(())).unwrap().pass_on());
}

#[test]
fn a_server_commits_as_durably_as_the_lanes() {
    let (rig, other) = (Rig::postgres(), Rig::postgres());
    let mut connection = other.connect::<PgConnection>();
    let refused = order(&rig.node, &mut connection, message("orders", "1"), Ok(()));
    assert!(matches!(refused, Err(Failed::Publish(PublishInError::OtherDatabase))), "{refused:?}");
    let of_file = Rig::sqlite();
    let refused = order(&of_file.node, &mut connection, message("orders", "1"), Ok(()));
    assert!(matches!(refused, Err(Failed::Publish(PublishInError::OtherDatabase))), "{refused:?}");

    let mut connection = rig.connect::<PgConnection>();
    connection.batch_execute("SET synchronous_commit = off; SET lock_timeout = '7s'").unwrap();
    let setting = |connection: &mut PgConnection, name: &str| {
        diesel::dsl::sql::<diesel::sql_types::Text>(&format!("SELECT current_setting('{name}')"))
            .get_result::<String>(connection)
            .unwrap()
    };
    let unsent = connection
        .writing(|connection| {
            let unsent = rig.node.publish_in(connection, [message("orders", "1")])?;
            assert_eq!(setting(connection, "synchronous_commit"), "on");
            assert_eq!(setting(connection, "lock_timeout"), "7s");
            Ok(unsent)
        })
        .unwrap();
    assert!(unsent.pass_on());
    assert_eq!(setting(&mut connection, "synchronous_commit"), "off");
}

/// An older file that is put back is noticed by it, whoever stored the last message.
#[test]
fn the_mark_follows_a_transaction() {
    let rig = Rig::sqlite();
    let mut connection = rig.connect::<SqliteConnection>();
    for seq in 1..=3 {
        drop(order(&rig.node, &mut connection, message("orders", "1"), Ok(())).unwrap());
        let began = Instant::now();
        let mark = rig.folder.0.join("chat.db-mark");
        while !std::fs::read_to_string(&mark).unwrap().ends_with(&format!(" {seq} orders\n")) {
            assert!(began.elapsed() < DEADLINE, "the mark stays behind {seq}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A pool of diesel's is what applications have.
#[test]
fn a_pooled_connection_is_one() {
    use diesel::r2d2::{ConnectionManager, Pool};
    let rig = Rig::sqlite();
    let path = rig.folder.0.join("chat.db");
    let manager = ConnectionManager::<SqliteConnection>::new(path.to_str().unwrap());
    let mut connection = Pool::builder().max_size(1).build(manager).unwrap().get().unwrap();
    let unsent: Result<Unsent, Box<dyn std::error::Error>> =
        connection.transaction(|connection| Ok(rig.node.publish_in(connection, [message("orders", "1")])?));
    assert!(unsent.unwrap().pass_on());
}
