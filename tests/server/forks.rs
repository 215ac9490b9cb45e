//! A database that goes back: failovers, restored backups, and holes in a room. Clients are told, and never given
//! one history for the other.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use diesel::connection::SimpleConnection;
use diesel::{Connection, RunQueryDsl};

use crate::support::postgres::Cluster;
use crate::support::server::{Backend, TestServer};
use crate::support::{TempDir, eventually};

/// Publishes numbers by the API, each as soon as the database takes it.
fn publish(server: &TestServer, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let body = format!(r#"{{"channel":"room","data":"new {number}"}}"#);
        eventually("the message is stored", || {
            let answer = server.post("/api/publish", "X-API-Key: key\r\n", &body).body;
            answer.contains(&format!(r#""offset":{number},"#))
        });
    }
}

/// What holds when the room is at 100, and `go_back` brings the database to where it was at 90.
fn clients_are_told(server: &TestServer, mut keep: impl FnMut(), mut go_back: impl FnMut()) {
    let (mut ann, mut bob) = (server.connect("ann"), server.connect("bob"));
    ann.join("room");
    bob.publish_numbers("room", 1..=90);
    let epoch = server.epoch();
    keep();
    publish(server, 91..=91);
    bob.publish_numbers("room", 92..=100);
    ann.expect_numbers(1..=90);
    (91..=100).for_each(|_| drop(ann.next_push()));
    assert_eq!(server.epoch(), epoch);
    assert_eq!(server.get("/health").body, "{}");

    go_back();
    publish(server, 91..=105);
    let end = ann.next_push();
    assert!(end.contains(r#""unsubscribe":{"code":2500,"#), "a listener is told to come again: {end}");
    assert_eq!(ann.waiting_pushes(), 0);
    let now = server.epoch();
    assert_ne!(now, epoch);
    for position in [85, 90, 95, 100] {
        let reply = server.connect("late").recover("room", position, &epoch);
        assert!(!reply.contains(r#""recovered":true"#) && reply.contains(r#""offset":105"#), "{reply}");
        let since = format!(
            r#"{{"history":{{"channel":"room","limit":9,"since":{{"offset":{position},"epoch":"{epoch}"}}}}}}"#
        );
        assert!(bob.ask(&since).contains(r#""code":112"#), "a position of the other history");
    }
    let reply = server.connect("late").recover("room", 90, &now);
    let new: Vec<_> =
        (91..=105).filter(|number| reply.contains(&format!(r#""data":"new {number}""#))).collect();
    assert_eq!(new, (91..=105).collect::<Vec<_>>(), "{reply}");
    assert!(reply.contains(r#""recovered":true"#));

    let health = server.get("/health");
    assert!(health.status == 200 && health.body.contains("forked"), "{}", health.body);
    assert_eq!(server.logged("the history of the database forked"), 1);
    assert_eq!(server.metric("history_forks_total"), 1);
}

#[test]
fn a_failover_to_a_copy_that_is_behind_is_told() {
    let cluster = std::cell::RefCell::new(Cluster::start());
    let database = cluster.borrow().database();
    let server = TestServer::at(database, TempDir::new(), "");
    clients_are_told(&server, || cluster.borrow_mut().save(), || cluster.borrow_mut().go_back());
}

/// The same with two hosts in the URL: the standby falls behind, the server dies, the standby takes over.
#[test]
fn a_standby_that_is_behind_takes_over_and_is_told() {
    let primary = Cluster::start();
    let standby = std::cell::RefCell::new(primary.standby());
    let primary = std::cell::RefCell::new(primary);
    let url = primary.borrow().database();
    let server = TestServer::at(primary.borrow().or(&standby.borrow(), &url), TempDir::new(), "");
    let fall_behind = || {
        let count = "SELECT count(*) FROM messages";
        let (own, of_standby) = (primary.borrow().port(), standby.borrow().port());
        let of_standby = url.replace(&format!(":{own}/"), &format!(":{of_standby}/"));
        eventually("the standby has everything", || {
            let mut standby = diesel::PgConnection::establish(&of_standby).unwrap();
            diesel::dsl::sql::<diesel::sql_types::BigInt>(count).get_result::<i64>(&mut standby) == Ok(90)
        });
        standby.borrow_mut().stop();
    };
    let take_over = || {
        primary.borrow_mut().crash();
        standby.borrow_mut().run();
        standby.borrow().take_over();
    };
    clients_are_told(&server, fall_behind, take_over);
}

/// As `.restore` of the shell of SQLite does it: the file is the same, what it holds is not.
#[test]
fn a_file_that_goes_back_under_the_server_is_told() {
    let server = TestServer::start();
    let back = "DELETE FROM messages WHERE seq > 90; UPDATE rooms SET head_seq = 90";
    clients_are_told(&server, || {}, || server.execute(back));
}

on_both_databases! {
    /// Somebody deleted rows, or a clock that was ahead made them outlive later ones.
    a_hole_in_the_middle_is_told_and_never_jumped(server) {
        let mut bob = server.connect("bob");
        bob.publish_numbers("room", 1..=10);
        let epoch = server.epoch();
        server.execute("DELETE FROM messages WHERE seq IN (5, 6)");
        server.restart();
        for (after, before_the_hole) in [(2, vec![3, 4]), (3, vec![4])] {
            let mut ann = server.connect("ann");
            let reply = ann.recover("room", after, &epoch);
            let numbers = |text: &str| (1..=10).filter(|n| text.contains(&format!(r#""data":{n},"#))).collect::<Vec<u64>>();
            assert_eq!(numbers(&reply), before_the_hole, "{reply}");
            let end = ann.next_push();
            assert!(end.contains(r#""unsubscribe":{"code":2500,"#), "{end}");
        }
        for after in [4, 5] {
            let reply = server.connect("ann").recover("room", after, &epoch);
            assert!(!reply.contains(r#""recovered":true"#), "{after}: {reply}");
        }
        assert!(server.connect("ann").recover("room", 6, &epoch).contains(r#""recovered":true"#));
    }
}

on_both_databases! {
    /// The clock was an hour ahead for the first messages.
    what_a_clock_that_was_ahead_kept_is_no_history(server, "[namespace.brief]\nhistory_ttl = \"5s\"\njoin_leave = false\n") {
        for number in 1..=10 {
            server.api("publish", &format!(r#"{{"channel":"brief:a","data":{number}}}"#));
        }
        let epoch = server.epoch();
        server.execute("UPDATE messages SET created_at = created_at + 3600000 WHERE seq <= 5");
        server.execute("UPDATE messages SET created_at = created_at - 60000 WHERE seq > 5");
        server.restart();
        server.api("publish", r#"{"channel":"brief:a","data":11}"#);
        server.restart();
        let mut ann = server.connect("ann");
        let reply = ann.recover("brief:a", 3, &epoch);
        assert!(!reply.contains(r#""data":11"#), "{reply}");
        assert!(!reply.contains(r#""recovered":true"#) || ann.next_push().contains(r#""code":2500"#));
    }
}

/// Runs a command on the database of a server.
fn roomcast(server: &TestServer, command: &str, file: &str) -> Output {
    let mut roomcast = Command::new(env!("CARGO_BIN_EXE_roomcast"));
    roomcast.args([command, "--database", "sqlite:chat.db", file]).current_dir(&server.folder.0);
    roomcast.output().unwrap()
}

#[track_caller]
fn refused(output: &Output, words: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && text.contains(words), "{text}");
}

#[test]
fn a_backup_is_put_back_and_clients_are_told() {
    let mut server = TestServer::start();
    let mut bob = server.connect("bob");
    bob.publish_numbers("room", 1..=5);
    let epoch = server.epoch();
    assert!(roomcast(&server, "backup", "copy.db").status.success(), "while the server runs");
    let mode = std::fs::metadata(server.folder.0.join("copy.db")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "a copy holds what people said");
    refused(&roomcast(&server, "backup", "copy.db"), "exists already");
    bob.publish_numbers("room", 6..=8);
    refused(&roomcast(&server, "restore", "copy.db"), "in use");
    bob.publish_numbers("room", 9..=9);
    assert_eq!(server.stop(), Some(0));

    std::fs::write(server.folder.0.join("letter.db"), "this is no database, whatever its name is").unwrap();
    refused(&roomcast(&server, "restore", "letter.db"), "cannot be put back");
    refused(&roomcast(&server, "restore", "nothing.db"), "there is no file");
    let what_the_server_refuses = [
        (
            "ours",
            "INSERT INTO __diesel_schema_migrations (version) VALUES ('99990101000000')",
            "newer version of Roomcast",
        ),
        ("ours", "ALTER TABLE rooms RENAME COLUMN head_seq TO head", "not those of this version"),
        (
            "foreign",
            "CREATE TABLE customers (id); CREATE TABLE meta (name, value); INSERT INTO meta VALUES ('epoch', 'abcdefgh')",
            "tables of another program (customers, meta)",
        ),
        (
            "foreign",
            "CREATE TABLE __diesel_schema_migrations (version); INSERT INTO __diesel_schema_migrations VALUES ('1'); \
          CREATE TABLE meta (name, value); INSERT INTO meta VALUES ('epoch', 'abcdefgh')",
            "migrations of another program",
        ),
        ("foreign", "VACUUM", "no such table: meta"),
    ];
    for (of, change, words) in what_the_server_refuses {
        let path = server.folder.0.join("unfit.db");
        let _ = std::fs::remove_file(&path);
        if of == "ours" {
            std::fs::copy(server.folder.0.join("copy.db"), &path).unwrap();
        }
        diesel::SqliteConnection::establish(path.to_str().unwrap()).unwrap().batch_execute(change).unwrap();
        refused(&roomcast(&server, "restore", "unfit.db"), "cannot be put back");
        refused(&roomcast(&server, "restore", "unfit.db"), words);
        assert!(!server.folder.0.join("chat.db.new").exists());
    }
    server.run();
    assert_eq!(server.epoch(), epoch, "what is refused changes nothing");
    assert_eq!(server.stop(), Some(0));

    let done = roomcast(&server, "restore", "copy.db");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(String::from_utf8_lossy(&done.stdout).contains("chat.db-replaced-"));
    server.run();
    let now = server.epoch();
    assert_ne!(now, epoch);
    let reply = server.connect("ann").recover("room", 9, &epoch);
    assert!(reply.contains(r#""offset":5"#) && !reply.contains(r#""recovered":true"#), "{reply}");
    assert!(server.connect("ann").recover("room", 3, &now).contains(r#""data":5"#));
    server.restart();
    assert_eq!(server.epoch(), now);
}

#[test]
fn postgres_is_copied_by_its_own_tools() {
    let server = TestServer::on(Backend::Postgres, "");
    let mut roomcast = Command::new(env!("CARGO_BIN_EXE_roomcast"));
    roomcast.args(["backup", "--database", "postgres://nobody@localhost/nothing", "copy.db"]);
    refused(&roomcast.current_dir(&server.folder.0).output().unwrap(), "pg_dump");
}

/// A file that is put back by hand differs from what was there by what the mark beside it says.
#[test]
fn a_file_that_was_put_back_by_hand_is_noticed() {
    let mut server = TestServer::start();
    server.connect("bob").publish_numbers("room", 1..=5);
    let epoch = server.epoch();
    assert_eq!(server.stop(), Some(0));
    let (file, copy) = (server.folder.0.join("chat.db"), server.folder.0.join("copy.db"));
    let mark = std::fs::read_to_string(server.folder.0.join("chat.db-mark")).unwrap();
    assert!(mark.ends_with(" 5 room\n"), "{mark}");
    std::fs::copy(&file, &copy).unwrap();
    server.run();
    server.connect("bob").publish_numbers("room", 6..=9);
    assert_eq!(server.epoch(), epoch);
    server.kill9();
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(server.folder.0.join(format!("chat.db{suffix}")));
    }
    std::fs::copy(&copy, &file).unwrap();
    server.run();
    assert_ne!(server.epoch(), epoch);
    assert!(server.logged("was replaced by an older one") > 0);
    assert!(server.get("/health").body.contains("forked"));
}
