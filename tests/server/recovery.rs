//! Whoever comes back gets exactly what was missed, in order, each message once.

use crate::support::server::TestServer;

/// The numbers in the publications of a subscribe reply, checked against their offsets.
fn recovered(reply: &str) -> Vec<u64> {
    let reply: serde_json::Value = serde_json::from_str(reply).unwrap();
    assert_eq!(reply["subscribe"]["recovered"], true, "{reply}");
    let none = Vec::new();
    let publications = reply["subscribe"]["publications"].as_array().unwrap_or(&none);
    let number = |publication: &serde_json::Value| {
        assert_eq!(publication["data"], publication["offset"]);
        publication["offset"].as_u64().unwrap()
    };
    publications.iter().map(number).collect()
}

on_both_databases! {
    a_reconnect_gets_exactly_what_it_missed(server) {
        let (mut ann, mut bob) = (server.connect("ann"), server.connect("bob"));
        ann.join("room");
        bob.publish_numbers("room", 1..=2);
        ann.expect_numbers(1..=2);
        drop(ann);
        bob.publish_numbers("room", 3..=5);
        let mut ann = server.connect("ann");
        assert_eq!(recovered(&ann.recover("room", 2, &server.epoch())), [3, 4, 5]);
        bob.publish_numbers("room", 6..=6);
        ann.expect_numbers(6..=6);
        ann.expect_silence("room");
    }
}

on_both_databases! {
    /// More than one page was missed, and people go on writing meanwhile.
    a_thousand_missed_messages_then_live_ones(server) {
        let (mut ann, mut bob) = (server.connect("ann"), server.connect("bob"));
        bob.publish_numbers("room", 1..=1000);
        let id = ann.call(r#"{"subscribe":{"channel":"room","recover":true}}"#);
        bob.publish_numbers("room", 1001..=1200);
        let first = recovered(&ann.reply_to(id));
        let length = first.len() as u64;
        assert_eq!(first, (1..=length).collect::<Vec<_>>());
        assert!((1..=300).contains(&length), "a page of {length}");
        ann.expect_numbers(length + 1..=1200);
        ann.expect_silence("room");
    }
}

on_both_databases! {
    what_was_acknowledged_survives_a_kill(server) {
        let mut ann = server.connect("ann");
        ann.publish_numbers("room", 1..=50);
        let epoch = server.epoch();
        server.kill9();
        server.run();
        assert_eq!(server.epoch(), epoch);
        let mut ann = server.connect("ann");
        assert_eq!(recovered(&ann.recover("room", 20, &epoch)), (21..=50).collect::<Vec<_>>());
        ann.publish_numbers("room", 51..=51);
        ann.expect_numbers(51..=51);
    }
}

on_both_databases! {
    /// The reply to a publish that was under way may be lost, but not a message that had one, and
    /// what was stored has no holes.
    a_kill_in_the_middle_of_writing_leaves_no_holes(server) {
        let mut ann = server.connect("ann");
        let publish = |number| format!(r#"{{"id":{number},"publish":{{"channel":"room","data":{number}}}}}"#);
        for frame in 0..40 {
            let lines: Vec<_> = (frame * 50 + 2..frame * 50 + 52).map(publish).collect();
            ann.send(&lines.join("\n"));
        }
        let mut acknowledged = 0;
        while acknowledged < 100 {
            ann.next_reply();
            acknowledged += 1;
        }
        server.kill9();
        server.run();
        let reply = server.connect("bob").ask(r#"{"history":{"channel":"room","limit":1,"reverse":true}}"#);
        let head: serde_json::Value = serde_json::from_str(&reply).unwrap();
        let head = head["history"]["offset"].as_u64().unwrap();
        assert!(head >= acknowledged, "{acknowledged} were acknowledged, {head} are there");
        assert!(reply.contains(&format!(r#""data":{},"#, head + 1)), "{reply}");
    }
}

on_both_databases! {
    the_epoch_and_the_numbers_go_on_over_restarts(server) {
        let epoch = server.epoch();
        server.connect("ann").publish_numbers("room", 1..=2);
        server.restart();
        assert_eq!(server.epoch(), epoch);
        let mut ann = server.connect("ann");
        ann.publish_numbers("room", 3..=3);
        assert_eq!(recovered(&ann.recover("room", 1, &epoch)), [2, 3]);
    }
}

on_both_databases! {
    a_short_history_recovers_only_its_length(server) {
        let epoch = server.epoch();
        let mut bob = server.connect("bob");
        bob.publish_numbers("last2:a", 1..=5);
        assert_eq!(recovered(&server.connect("ann").recover("last2:a", 3, &epoch)), [4, 5]);
        assert_eq!(recovered(&server.connect("ann").recover("last2:a", 5, &epoch)), [0u64; 0]);
        let failed = server.connect("ann").recover("last2:a", 2, &epoch);
        assert_eq!(failed, r#"{"subscribe":{"recoverable":true,"positioned":true,"epoch":"E","offset":5,"was_recovering":true}}"#);
        let reply = bob.ask(r#"{"history":{"channel":"last2:a","limit":-1}}"#);
        assert!(reply.contains(r#"[{"data":4,"#) && reply.matches(r#""data""#).count() == 2, "{reply}");
    }
}

#[test]
fn many_recover_at_once_and_all_get_everything() {
    let server = TestServer::start();
    let mut bob = server.connect("bob");
    bob.publish_numbers("room", 1..=600);
    let mut clients: Vec<_> = (0..20).map(|_| server.connect("ann")).collect();
    let recover = r#"{"subscribe":{"channel":"room","recover":true,"offset":100}}"#;
    let ids: Vec<_> = clients.iter_mut().map(|client| client.call(recover)).collect();
    bob.publish_numbers("room", 601..=650);
    for (client, id) in clients.iter_mut().zip(ids) {
        let first = recovered(&client.reply_to(id));
        assert_eq!(first, (101..=100 + first.len() as u64).collect::<Vec<_>>());
        client.expect_numbers(101 + first.len() as u64..=650);
    }
}

#[test]
fn an_idle_room_leaves_memory_and_comes_back_where_it_was() {
    let server = TestServer::with("[rooms]\nidle_timeout = \"50ms\"\n");
    let mut ann = server.connect("ann");
    ann.publish_numbers("room", 1..=3);
    ann.join("room");
    assert_eq!(server.metric("rooms_active"), 1);
    ann.ask(r#"{"unsubscribe":{"channel":"room"}}"#);
    crate::support::eventually("the room is evicted", || server.metric("rooms_active") == 0);
    assert_eq!(recovered(&ann.recover("room", 1, "")), [2, 3]);
    ann.publish_numbers("room", 4..=4);
    ann.expect_numbers(4..=4);
}

on_both_databases! {
    /// Subscribing while others write: the reply says a position, and the next push is the one after.
    subscribing_in_the_middle_of_writing(server) {
        let mut ann = server.connect("ann");
        let server = &server;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut writer = server.connect("writer");
                (1..=600).for_each(|number| writer.publish_numbers("room", number..=number));
            });
            for _ in 0..40 {
                let id = ann.call(r#"{"subscribe":{"channel":"room"}}"#);
                let lines = ann.next_lines();
                let reply: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
                assert_eq!(reply["id"], id, "the reply comes first: {lines:?}");
                let head = reply["subscribe"]["offset"].as_u64().unwrap_or(0);
                for (line, number) in lines[1..].iter().zip(head + 1..) {
                    assert!(line.contains(&format!(r#""data":{number},"#)), "{line} after {head}");
                }
                let id = ann.call(r#"{"unsubscribe":{"channel":"room"}}"#);
                while !is_out(&mut ann, id) {}
            }
        });
        ann.expect_silence("room");
    }
}

/// Reads a frame; true if it held the reply to this unsubscribe, behind which nothing may come.
fn is_out(client: &mut crate::support::client::Client, id: u32) -> bool {
    let lines = client.next_lines();
    let reply = format!(r#"{{"id":{id},"unsubscribe":{{}}}}"#);
    let at = lines.iter().position(|line| *line == reply);
    at.inspect(|at| assert_eq!(at + 1, lines.len(), "a push after the end: {lines:?}")).is_some()
}

on_both_databases! {
    /// A client that loses its connection again and again sees one sequence without holes.
    comings_and_goings_while_others_write(server) {
        let server = &server;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut writer = server.connect("writer");
                (0..60).for_each(|turn| writer.publish_numbers("room", turn * 20 + 1..=turn * 20 + 20));
            });
            let mut position = 0;
            while position < 1200 {
                let mut ann = server.connect("ann");
                for number in recovered(&ann.recover("room", position, "")) {
                    position += 1;
                    assert_eq!(number, position);
                }
                let end = (position + 7).min(1200);
                ann.expect_numbers(position + 1..=end);
                position = end;
            }
        });
    }
}

on_both_databases! {
    what_is_older_than_the_namespace_keeps_is_not_there(server, "[namespace.brief]\nhistory_ttl = \"1s\"\njoin_leave = false\nread_history = \"everyone\"\n") {
        server.api("publish", r#"{"channel":"brief:a","data":1}"#);
        let mut ann = server.connect("ann");
        let none = r#"{"history":{"publications":[],"epoch":"E","offset":1}}"#;
        crate::support::eventually("it is gone", || ann.ask(r#"{"history":{"channel":"brief:a","limit":9}}"#) == none);
        assert!(!ann.recover("brief:a", 0, "").contains(r#""recovered":true"#));
        assert!(server.connect("bob").recover("brief:a", 1, "").contains(r#""recovered":true"#));
    }
}

on_both_databases! {
    /// Pages of large messages still fit a frame that every SDK takes.
    recovery_of_large_messages(server) {
        let pad = "x".repeat(60_000);
        for number in 1..=40 {
            server.api("publish", &format!(r#"{{"channel":"room","data":[{number},"{pad}"]}}"#));
        }
        let mut ann = server.connect("ann");
        let first = ann.recover("room", 0, "").matches(r#""data":["#).count();
        assert!((1..40).contains(&first), "{first} in the first page");
        for number in first + 1..=40 {
            let push = ann.next_push();
            assert!(push.contains(&format!(r#""data":[{number},"#)), "expected {number}: {}", &push[..60]);
        }
        ann.expect_silence("room");
    }
}
