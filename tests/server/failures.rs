//! The database fails: nothing is acknowledged that is not stored, nobody gets it, and all heals.

use diesel::connection::SimpleConnection;

use crate::support::postgres::Cluster;
use crate::support::server::TestServer;
use crate::support::{TempDir, eventually};

const TEMPORARY: &str = r#"{"error":{"code":100,"message":"internal server error","temporary":true}}"#;
const PUBLISH: &str = r#"{"publish":{"channel":"room","data":2}}"#;

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
    assert_eq!(server.metric("store_up"), 0);
    assert!(server.metric("commit_failures_total") > 0);
    assert!(server.api("publish", r#"{"channel":"room","data":2}"#).starts_with(r#"{"error":{"code":100"#));
    bob.expect_silence("room");

    cluster.run();
    eventually("it answers again", || ann.ask(PUBLISH) == r#"{"publish":{}}"#);
    bob.expect_numbers(2..=2);
    bob.expect_silence("room");
    eventually("health says so", || server.get("/health").status == 200);
    assert_eq!(server.metric("store_up"), 1);
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
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_roomcast"))
        .args(["serve", "--listen", "127.0.0.1:0", "--database", &database])
        .current_dir(&server.folder.0)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
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
    assert_eq!(server.metric("store_up"), 0);
    bob.expect_silence("room");
    assert_eq!(server.logged("the database does not work"), 1, "{}", server.log());
    server.kill9();
    server.run();
    server.connect("ann").publish_numbers("room", 11..=12);
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
    assert_eq!(server.get("/health").status, 200);
}
