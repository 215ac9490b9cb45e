//! Many messages, few commits, and who waits for them.

use std::time::{Duration, Instant};

use crate::support::eventually;
use crate::support::server::TestServer;

on_both_databases! {
    /// Everything that waits in the socket is committed together.
    a_thousand_publishes_in_one_frame(server) {
        let (mut ann, mut bob) = (server.connect("ann"), server.connect("bob"));
        bob.join("room");
        ann.publish_numbers("room", 1..=1000);
        bob.expect_numbers(1..=1000);
        let (messages, commits) = (server.metric("commit_batch_rows_sum"), server.metric("commit_batch_rows_count"));
        assert_eq!(messages, 1000);
        assert!(commits <= 20, "{commits} commits");
    }
}

on_both_databases! {
    a_commit_spans_rooms_and_keeps_the_order_of_each(server) {
        let (mut ann, mut bob) = (server.connect("ann"), server.connect("bob"));
        let rooms: Vec<_> = (0..10).map(|number| format!("room{number}")).collect();
        let commands: Vec<_> = (0..500u64).map(|number| {
            let room = &rooms[number as usize % 10];
            ann.with_id(&format!(r#"{{"publish":{{"channel":"{room}","data":{}}}}}"#, number / 10 + 1))
        }).collect();
        for room in &rooms {
            bob.join(room);
        }
        ann.send(&commands.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join("\n"));
        for (id, _) in commands {
            assert_eq!(ann.reply_to(id), r#"{"publish":{}}"#);
        }
        let mut heads = std::collections::BTreeMap::new();
        for _ in 0..500 {
            let push: serde_json::Value = serde_json::from_str(&bob.next_push()).unwrap();
            let publication = &push["push"]["pub"];
            let head = heads.entry(push["push"]["channel"].to_string()).or_insert(0);
            *head += 1;
            assert_eq!((&publication["offset"], &publication["data"]), (&(*head).into(), &(*head).into()));
        }
        assert!(server.metric("commit_batch_rows_count") <= 40);
    }
}

on_both_databases! {
    /// Many writers to one room at once: one order for all, no number twice, none missing.
    concurrent_writers_share_one_order(server) {
        let (mut one, mut other) = (server.connect("one"), server.connect("other"));
        one.join("room");
        other.join("room");
        let server = &server;
        std::thread::scope(|scope| {
            for writer in 0..6 {
                scope.spawn(move || server.connect(&format!("writer{writer}")).publish_numbers("room", 1..=100));
            }
        });
        let mut latest = std::collections::BTreeMap::new();
        for offset in 1..=600u64 {
            let push = one.next_push();
            assert_eq!(other.next_push(), push);
            let push: serde_json::Value = serde_json::from_str(&push).unwrap();
            let publication = &push["push"]["pub"];
            assert_eq!(publication["offset"], offset);
            let last = latest.insert(publication["info"]["user"].to_string(), publication["data"].as_u64().unwrap());
            assert_eq!(publication["data"], last.unwrap_or(0) + 1, "in the order its writer sent it");
        }
    }
}

/// Publishers that wait for their commit own no reader: there are two, and twenty publishers wait.
#[test]
fn a_slow_database_holds_up_nobody_else() {
    let server = TestServer::with(
        "readers_max = 2\n[namespace.live]\npersist = false\njoin_leave = false\npublish = \"everyone\"\n",
    );
    let mut publishers: Vec<_> = (0..20).map(|number| server.connect(&format!("ann{number}"))).collect();
    let (mut bob, mut eve) = (server.connect("bob"), server.connect("eve"));
    bob.join("live:a");
    eve.join("room");
    let lock = server.lock_sqlite();
    let published: Vec<_> = publishers
        .iter_mut()
        .map(|ann| {
            [1, 2].map(|data| ann.call(&format!(r#"{{"publish":{{"channel":"room","data":{data}}}}}"#)))
        })
        .collect();
    eventually("all were read", || server.metric("commands_total{method=\"publish\"}") == 40);
    eve.publish("live:a", "1");
    assert!(bob.next_push().contains(r#""data":1"#), "other rooms go on");
    assert_eq!(eve.ask(r#"{"ping":{}}"#), r#"{"ping":{}}"#);
    assert_eq!(server.metric("publish_ack_seconds_count"), 1, "only what is not stored is acknowledged");
    assert!(server.metric("readers") <= 2);
    drop(lock);
    for (ann, ids) in publishers.iter_mut().zip(published) {
        for id in ids {
            assert_eq!(ann.reply_to(id), r#"{"publish":{}}"#);
        }
    }
    for _ in 0..40 {
        eve.next_push();
    }
}

on_both_databases! {
    /// What asks for the publishes before it sees them, and what ends the connection comes behind their acks.
    a_command_waits_for_the_publishes_before_it(server) {
        let mut ann = server.connect("ann");
        ann.join("room");
        for round in 1..=20u64 {
            let (publish, first) = ann.with_id(r#"{"publish":{"channel":"room","data":1}}"#);
            let (history, second) = ann.with_id(r#"{"history":{"channel":"room"}}"#);
            ann.send(&format!("{first}\n{second}"));
            assert_eq!(ann.reply_to(publish), r#"{"publish":{}}"#);
            let reply = ann.reply_to(history);
            assert!(reply.contains(&format!(r#""offset":{round}"#)), "{reply}");
        }
        let publish = ann.call(r#"{"publish":{"channel":"room","data":1}}"#);
        ann.send("not a command");
        assert_eq!(ann.reply_to(publish), r#"{"publish":{}}"#);
        assert_eq!(ann.expect_close(3501), "bad request");
    }
}

on_both_databases! {
    /// Whoever publishes meanwhile waits for a turn of it, not for all of it.
    a_large_broadcast_lets_others_pass(server, "[database]\ncommit_lanes = 1\n") {
        let mut ann = server.connect("ann");
        ann.publish("other", "0");
        let names: Vec<_> = (0..25_000).map(|number| format!(r#""room{number}""#)).collect();
        let body = format!(r#"{{"channels":[{}],"data":1}}"#, names.join(","));
        let started = Instant::now();
        let (answer, took, longest, acks) = std::thread::scope(|scope| {
            let broadcast = scope.spawn(|| (server.post("/api/broadcast", "", &body), started.elapsed()));
            let (mut longest, mut acks) = (Duration::ZERO, 0);
            while !broadcast.is_finished() {
                let asked = Instant::now();
                ann.publish("other", "1");
                longest = longest.max(asked.elapsed());
                acks += 1;
            }
            let (answer, took) = broadcast.join().unwrap();
            (answer, took, longest, acks)
        });
        assert!(acks > 10 && longest < took / 4, "{acks} acks, the longest took {longest:?} of {took:?}");
        // So many answers would be more than a mebibyte.
        let expected = r#"{"result":{"responses":[],"published":25000,"refused":0,"errors":[]}}"#;
        assert!(answer.body == expected, "{:.200}", answer.body);
    }
}

#[test]
fn a_broadcast_names_its_first_refusals_when_all_are_too_many() {
    let server = TestServer::start();
    let broadcast = |count: usize| {
        let names: Vec<_> = (0..count).map(|number| format!(r#""nowhere:{number}""#)).collect();
        server.post("/api/broadcast", "", &format!(r#"{{"channels":[{}],"data":1}}"#, names.join(","))).body
    };
    assert!(broadcast(1000).contains(r#""responses":[{"error":"#));
    let many = broadcast(50_000);
    assert!(
        many.len() < 1024 * 1024
            && many.contains(
                r#""published":0,"refused":50000,"errors":[{"channel":"nowhere:0","error":{"code":102"#
            )
    );
    assert!(broadcast(100_001).contains(r#""code":107"#));
}
