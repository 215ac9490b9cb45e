//! The database fails: nothing is acknowledged that is not stored, nobody gets it, and all heals.

use std::io::Read;

use diesel::connection::SimpleConnection;
use diesel::{Connection, RunQueryDsl};

use crate::support::client::Client;
use crate::support::in_time::in_time;
use crate::support::postgres::Cluster;
use crate::support::server::TestServer;
use crate::support::{TempDir, eventually};

const TEMPORARY: &str = r#"{"error":{"code":100,"message":"internal server error","temporary":true}}"#;
const PUBLISH: &str = r#"{"publish":{"channel":"room","data":2}}"#;

/// True while every part of the store is up, as the metrics say.
fn is_up(server: &TestServer) -> bool {
    let text = server.get("/metrics").body;
    let mut states = text.lines().filter(|line| line.starts_with("roomcast_store_up{"));
    states.all(|line| line.ends_with(" 1"))
}

/// Whoever asks, by whichever door, has an answer in time, and health says it; afterwards all goes on.
fn nobody_is_held_up<Lock>(server: &TestServer, lock: impl FnOnce() -> Lock, reads_fail: bool) {
    let mut ann = server.connect("ann");
    ann.publish_numbers("room", 1..=1);
    let mut crowd: Vec<_> = (0..40).map(|number| server.connect(&format!("user-{number}"))).collect();
    let lock = lock();
    many_rows_are_answered(server, &mut ann);
    assert_eq!(in_time(|| ann.ask(PUBLISH)), TEMPORARY);
    let calls: Vec<_> = (0..20).map(|_| ann.call(PUBLISH)).collect();
    in_time(|| calls.into_iter().for_each(|id| assert_eq!(ann.reply_to(id), TEMPORARY)));
    let contact = r#"{"rpc":{"method":"contacts.add","data":{"user":"bob"}}}"#;
    assert_eq!(in_time(|| ann.ask(contact)), TEMPORARY);
    let api = in_time(|| server.api("publish", r#"{"channel":"room","data":2}"#));
    assert!(api.starts_with(r#"{"error":{"code":100"#), "{api}");
    let history = in_time(|| ann.ask(r#"{"history":{"channel":"room","limit":9}}"#));
    assert_eq!(history == TEMPORARY, reads_fail, "{history}");
    a_crowd_that_asks_is_answered(&mut crowd, reads_fail);
    assert_eq!(in_time(|| server.get("/health")).status, 503);
    assert!(!is_up(server));
    drop(lock);
    eventually("it answers again", || ann.ask(PUBLISH) == r#"{"publish":{}}"#);
    eventually("health says so", || server.get("/health").status == 200);
}

/// Far more rows than one commit takes, by one request, one frame and many frames.
fn many_rows_are_answered(server: &TestServer, ann: &mut Client) {
    const ROWS: usize = 3000;
    let channels: Vec<_> = (0..ROWS).map(|number| format!("\"room-{number}\"")).collect();
    let broadcast = format!(r#"{{"channels":[{}],"data":2}}"#, channels.join(","));
    let told = in_time(|| server.api("broadcast", &broadcast));
    let refused = told.matches(r#"{"error":{"code":100,"#).count();
    assert_eq!((refused, told.matches("offset").count()), (ROWS, 0));
    for frames in [1, ROWS] {
        let (ids, texts): (Vec<_>, Vec<_>) = (0..ROWS).map(|_| ann.with_id(PUBLISH)).unzip();
        in_time(|| {
            texts.chunks(ROWS / frames).for_each(|texts| ann.send(&texts.join("\n")));
            ids.into_iter().for_each(|id| assert_eq!(ann.reply_to(id), TEMPORARY));
        });
    }
}

/// Far more than may ask at once: what they wait in line is part of their time.
fn a_crowd_that_asks_is_answered(crowd: &mut [Client], reads_fail: bool) {
    let ask = [
        r#"{"rpc":{"method":"contacts.add","data":{"user":"bob"}}}"#,
        r#"{"history":{"channel":"room","limit":9}}"#,
    ];
    in_time(|| {
        let calls: Vec<_> =
            crowd.iter_mut().zip(ask.iter().cycle()).map(|(client, ask)| client.call(ask)).collect();
        for (number, (client, id)) in crowd.iter_mut().zip(calls).enumerate() {
            let reply = client.reply_to(id);
            assert_eq!(reply == TEMPORARY, reads_fail || number % 2 == 0, "{reply}");
        }
    });
}

#[test]
fn a_locked_file_holds_nobody_up() {
    let server = TestServer::start();
    nobody_is_held_up(&server, || server.lock_sqlite(), false);
}

#[test]
fn locked_tables_hold_nobody_up() {
    let url = crate::support::postgres::shared().database();
    let server = TestServer::at(url.clone(), TempDir::new(), "");
    let lock = || {
        let mut connection = diesel::PgConnection::establish(&url).unwrap();
        connection.batch_execute("BEGIN; LOCK TABLE messages, users IN ACCESS EXCLUSIVE MODE").unwrap();
        connection
    };
    nobody_is_held_up(&server, lock, true);
}

/// One room is locked: its messages fail for now, those of others do not, and none is called bad.
#[test]
fn a_locked_room_fails_alone() {
    let url = crate::support::postgres::shared().database();
    let mut other = diesel::PgConnection::establish(&url).unwrap();
    let server = TestServer::at(
        url + "&options=-clock_timeout%3D1000",
        TempDir::new(),
        "[database]\ncommit_lanes = 1\n",
    );
    let mut ann = server.connect("ann");
    ann.publish("A", "1");
    ann.publish("B", "1");
    other.batch_execute("BEGIN; SELECT * FROM rooms WHERE name = 'A' FOR UPDATE").unwrap();
    let publish = |room: &str| format!(r#"{{"publish":{{"channel":"{room}","data":2}}}}"#);
    let calls: Vec<_> = ["B", "A", "B", "A"].iter().map(|room| ann.with_id(&publish(room))).collect();
    ann.send(&calls.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join("\n"));
    let replies = in_time(|| calls.iter().map(|(id, _)| ann.reply_to(*id)).collect::<Vec<_>>());
    let stored = r#"{"publish":{}}"#;
    assert_eq!(replies, [stored, TEMPORARY, stored, TEMPORARY]);
    eventually("it is logged", || server.log().matches("the database does not work").count() == 1);
    assert_eq!((server.get("/health").status, server.metric("store_up{lane=\"0\"}")), (503, 0));
}

#[test]
fn postgres_goes_away_and_comes_back() {
    let mut cluster = Cluster::start();
    let server = TestServer::at(cluster.database(), TempDir::new(), "");
    let (mut ann, mut bob) = (server.connect("ann"), server.connect("bob"));
    bob.join("room");
    ann.publish_numbers("room", 1..=1);
    bob.expect_numbers(1..=1);

    cluster.stop();
    assert_eq!(ann.ask(PUBLISH), TEMPORARY);
    assert_eq!(ann.ask(r#"{"history":{"channel":"room","limit":-1}}"#), TEMPORARY);
    let health = server.get("/health");
    assert_eq!(health.status, 503);
    assert!(health.body.starts_with(r#"{"problems":["the database does not answer: "#), "{}", health.body);
    assert!(!is_up(&server));
    assert!(server.metric("commit_failures_total") > 0);
    assert!(server.api("publish", r#"{"channel":"room","data":2}"#).starts_with(r#"{"error":{"code":100"#));
    bob.expect_silence("room");

    cluster.run();
    eventually("it answers again", || ann.ask(PUBLISH) == r#"{"publish":{}}"#);
    bob.expect_numbers(2..=2);
    bob.expect_silence("room");
    eventually("health says so", || server.get("/health").status == 200);
    eventually("the metric says so", || is_up(&server));
}

#[test]
fn health_heals_without_anybody_publishing() {
    let mut cluster = Cluster::start();
    let server = TestServer::at(cluster.database(), TempDir::new(), "");
    let mut ann = server.connect("ann");
    ann.publish_numbers("room", 1..=1);
    cluster.stop();
    assert_eq!(ann.ask(PUBLISH), TEMPORARY);
    cluster.run();
    eventually("health says so", || server.get("/health").status == 200);
}

#[test]
fn a_server_without_its_database_does_not_start() {
    let folder = TempDir::new();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_roomcast"))
        .args(["serve", "--listen", "127.0.0.1:0", "--database", "postgres://nobody@127.0.0.1:1/none"])
        .current_dir(&folder.0)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(!output.stderr.is_empty() && !String::from_utf8_lossy(&output.stderr).contains("panicked"));
}

/// What a start says that must fail.
fn refusal(server: &TestServer) -> String {
    let database = format!("sqlite:{}", server.folder.0.join("chat.db").display());
    let mut start = std::process::Command::new(env!("CARGO_BIN_EXE_roomcast"))
        .args(["serve", "--listen", "127.0.0.1:0", "--database", &database])
        .current_dir(&server.folder.0)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // The first byte of a server that runs, or the end of one that does not.
    let mut first = [0];
    let runs = start.stdout.take().unwrap().read(&mut first).unwrap() > 0;
    if runs {
        start.kill().unwrap();
    }
    let output = start.wait_with_output().unwrap();
    assert!(!runs && output.status.code() == Some(1), "it starts");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_file_has_one_server() {
    let mut server = TestServer::start();
    server.connect("ann").publish_numbers("room", 1..=3);
    let told = refusal(&server);
    assert!(told.contains(&format!("the process {} serves it", server.pid())), "{told}");
    server.connect("ann").publish_numbers("room", 4..=4);
    // The claim ends with the process, however that ends.
    server.kill9();
    server.run();
    server.connect("ann").publish_numbers("room", 5..=5);
}

#[test]
fn a_newer_database_is_refused_with_words() {
    let mut server = TestServer::start();
    assert_eq!(server.stop(), Some(0));
    let newer = "INSERT INTO __diesel_schema_migrations (version) VALUES ('99990101000000')";
    server.sqlite().batch_execute(newer).unwrap();
    let told = refusal(&server);
    assert!(told.starts_with("roomcast: the database cannot be used: "), "{told}");
    assert!(told.contains("newer version of Roomcast"), "{told}");
}

#[test]
fn a_deleted_wal_loses_nothing() {
    let mut server = TestServer::start();
    let (mut ann, mut bob) = (server.connect("ann"), server.connect("bob"));
    bob.join("room");
    ann.publish_numbers("room", 1..=10);
    bob.expect_numbers(1..=10);
    assert!(server.metric("store_wal_bytes") > 0);
    std::fs::remove_file(server.folder.0.join("chat.db-wal")).unwrap();
    assert_eq!(ann.ask(PUBLISH), TEMPORARY);
    assert_eq!(ann.ask(PUBLISH), TEMPORARY);
    let health = server.get("/health");
    let told = "chat.db-wal was moved or deleted; what was acknowledged is saved in the database; restart the server";
    assert!(health.status == 503 && health.body.contains(told), "{}", health.body);
    assert!(!is_up(&server));
    bob.expect_silence("room");
    assert_eq!(server.logged("the database does not work"), 1, "{}", server.log());
    server.kill9();
    server.run();
    server.connect("ann").publish_numbers("room", 11..=12);
    let heads = diesel::dsl::sql::<diesel::sql_types::BigInt>("SELECT head_seq FROM rooms");
    assert_eq!(heads.load::<i64>(&mut server.sqlite()).unwrap(), [12]);
    assert_eq!(server.get("/health").status, 200);
}

/// A trigger stands for every failure inside SQLite.
#[test]
fn sqlite_refuses_and_recovers() {
    let server = TestServer::start();
    let (mut ann, mut bob) = (server.connect("ann"), server.connect("bob"));
    bob.join("room");
    ann.publish_numbers("room", 1..=1);
    bob.expect_numbers(1..=1);
    let sql = |text: &str| server.sqlite().batch_execute(text).unwrap();
    sql("CREATE TRIGGER is_full BEFORE INSERT ON messages BEGIN SELECT RAISE(FAIL, 'disk is full'); END;");
    assert_eq!(ann.ask(PUBLISH), TEMPORARY);
    assert!(ann.ask(r#"{"history":{"channel":"room","limit":9}}"#).contains(r#""data":1"#), "it still reads");
    let health = server.get("/health");
    assert!(health.status == 503 && health.body.contains("disk is full"), "{}", health.body);
    bob.expect_silence("room");
    sql("DROP TRIGGER is_full;");
    eventually("it answers again", || ann.ask(PUBLISH) == r#"{"publish":{}}"#);
    bob.expect_numbers(2..=2);
    eventually("health says so", || server.get("/health").status == 200);
}
