//! What the operator sees of rooms in memory, and what the operator may say about them.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::server::TestServer;

/// The result of an API call.
fn ask(server: &TestServer, method: &str, params: &Value) -> Value {
    let answer: Value = serde_json::from_str(&server.api(method, &params.to_string())).unwrap();
    assert!(answer["error"].is_null(), "{method} {params}: {answer}");
    answer["result"].clone()
}

fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

fn rooms(server: &TestServer, params: &Value) -> Vec<Value> {
    ask(server, "rooms", params)["rooms"].as_array().unwrap().clone()
}

#[test]
fn active_rooms_are_listed_with_age_rate_and_strategy() {
    let server = TestServer::start();
    let before = unix_ms();
    let (mut ann, mut bob) = (server.connect("ann"), server.connect("bob"));
    for client in [&mut ann, &mut bob] {
        client.join("busy");
    }
    ann.join("quiet");
    for number in 1..=5 {
        ann.publish("busy", &number.to_string());
    }
    bob.expect_numbers(1..=5);

    let listed = rooms(&server, &json!({}));
    let names: Vec<_> = listed.iter().map(|room| room["channel"].as_str().unwrap()).collect();
    assert_eq!(names, ["busy", "quiet"], "the busiest comes first");
    let busy = &listed[0];
    assert_eq!(
        (&busy["num_clients"], &busy["num_lagging"], &busy["head"]),
        (&json!(2), &json!(0), &json!(5))
    );
    assert!(busy["rate"].as_f64().unwrap() > 0.0 && busy["cost_us"].as_u64().unwrap() > 0, "{busy}");
    let how = (busy["strategy"].as_str().unwrap(), busy["reason"].as_str().unwrap());
    assert!([("inline", "small"), ("worker", "queued")].contains(&how), "{busy}");
    let (since, last) = (busy["active_since"].as_i64().unwrap(), busy["last_activity"].as_i64().unwrap());
    // A moment of the process is turned into a time of day with the precision of a millisecond.
    assert!(before - 2 <= since && since <= last + 2 && last <= unix_ms() + 2, "{before} {busy}");
    assert!(listed[1].get("strategy").is_none() && listed[1].get("forced").is_none(), "{}", listed[1]);

    let by = |params: Value| rooms(&server, &params)[0]["channel"].clone();
    assert_eq!(by(json!({"order": "listeners", "limit": 1})), "busy");
    assert_eq!(by(json!({"pattern": "q*"})), "quiet");
    bob.join("newest");
    assert_eq!(by(json!({"order": "activity", "limit": 1})), "newest");
    assert_eq!(rooms(&server, &json!({"limit": 2})).len(), 2);
    for wrong in [json!({"limit": 0}), json!({"limit": 1001}), json!({"order": "size"})] {
        assert!(server.api("rooms", &wrong.to_string()).contains(r#""code":107"#), "{wrong}");
    }
}

#[test]
fn metrics_name_the_busiest_rooms_only_when_asked() {
    let server = TestServer::start();
    let mut ann = server.connect("ann");
    ann.join("lobby");
    server.api("room_strategy", r#"{"channel":"lobby","strategy":"worker"}"#);
    ann.publish("lobby", "1");
    ann.expect_numbers(1..=1);
    assert!(!server.get("/metrics").body.contains("lobby"));
    let text = server.get("/metrics?rooms=10").body;
    for line in [
        r#"roomcast_room_listeners{channel="lobby"} 1"#,
        r#"roomcast_room_lagging{channel="lobby"} 0"#,
        r#"roomcast_room_strategy{channel="lobby",reason="forced",strategy="worker"} 1"#,
        r#"roomcast_room_rate{channel="lobby"} 0."#,
        r#"roomcast_room_last_activity_seconds{channel="lobby"} 1"#,
        r#"roomcast_fanouts_total{reason="forced",strategy="worker"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    for wrong in ["0", "1001", "many", "-1"] {
        assert_eq!(server.get(&format!("/metrics?rooms={wrong}")).status, 400, "{wrong}");
    }
}

#[test]
fn the_operator_may_name_a_rooms_strategy_and_take_it_back() {
    let server = TestServer::with("[namespace.solo]\nstrategy = \"worker\"\njoin_leave = false\n");
    let mut ann = server.connect("ann");
    ann.join("lobby");
    ann.join("solo:lobby");
    let mut publish = |channel: &str| {
        ann.publish(channel, "1");
        ann.next_push();
        let room = &rooms(&server, &json!({"pattern": channel}))[0];
        let text = |member: &str| room[member].as_str().unwrap_or("-").to_owned();
        [text("strategy"), text("reason"), text("forced")].join(" ")
    };
    let name = |channel: &str, strategy: Value| {
        ask(&server, "room_strategy", &json!({"channel": channel, "strategy": strategy}));
    };
    // A sender that finds the worker still busy with the question before leaves the message to it.
    let mut expect = |channel: &str, how: &str| eventually(how, || publish(channel) == how);
    expect("lobby", "inline small -");
    for strategy in ["worker", "parallel", "inline"] {
        name("lobby", json!(strategy));
        expect("lobby", &format!("{strategy} forced {strategy}"));
    }
    name("lobby", Value::Null);
    expect("lobby", "inline small -");
    expect("solo:lobby", "worker forced worker");
    name("solo:lobby", json!("auto"));
    expect("solo:lobby", "inline small -");
}

#[test]
fn the_api_names_a_client_in_catch_up() {
    let server = TestServer::start();
    let (mut slow, mut quick) = (server.connect("slow"), server.connect("quick"));
    slow.join("room");
    quick.join("room");
    let pad = "x".repeat(50_000);
    for number in 1..=200 {
        quick.publish("room", &format!(r#"{{"n":{number},"pad":"{pad}"}}"#));
        quick.next_push();
    }
    let answer = ask(&server, "lagging", &json!({}));
    assert_eq!(answer["total"], 1, "{answer}");
    let entry = &answer["lagging"][0];
    assert_eq!(
        (&entry["user"], &entry["channel"], &entry["cause"]),
        (&json!("slow"), &json!("room"), &json!("slow"))
    );
    assert!(
        entry["offset"].as_u64().unwrap() < 200 && entry["queued_bytes"].as_u64().unwrap() > 0,
        "{entry}"
    );
    assert_eq!(rooms(&server, &json!({}))[0]["num_lagging"], 1);
    for _ in 1..=200 {
        slow.next_push();
    }
    eventually("nobody lags", || ask(&server, "lagging", &json!({}))["total"] == 0);
    assert_eq!(rooms(&server, &json!({}))[0]["num_lagging"], 0);
}

/// A disconnect by the API takes the user out of every room before it is answered.
#[test]
fn a_disconnected_client_has_left_its_rooms() {
    let server = TestServer::start();
    let mut ann = server.connect("ann");
    let mut other = server.connect("ann");
    for room in ["one", "two", "three"] {
        ann.join(room);
        other.join(room);
    }
    assert_eq!(server.metric("listeners"), 6);
    server.api("disconnect", r#"{"user":"ann"}"#);
    for room in ["one", "two", "three"] {
        let stats = ask(&server, "presence_stats", &json!({"channel": room}));
        assert_eq!(stats["num_clients"], 0, "{room}");
    }
    assert_eq!((server.metric("listeners"), server.metric("connections")), (0, 0));
    ann.expect_close(3503);
    other.expect_close(3503);
}

on_both_databases! {
    /// Names that are subscribed to and left at once, thousands in a row, leave no room and no question to the
    /// database behind. Each command has its answer, in order, and others are answered meanwhile.
    names_that_are_only_touched_leave_nothing_behind(server) {
        const FRAMES: usize = 10;
        let (mut ann, mut bob) = (server.connect("ann"), server.connect("bob"));
        let mut pairs = Vec::new();
        for number in 0..FRAMES {
            let mut lines = Vec::new();
            for name in 0..300 {
                let (joins, join) = ann.with_id(&format!(r#"{{"subscribe":{{"channel":"n{number}-{name}"}}}}"#));
                let (leaves, leave) =
                    ann.with_id(&format!(r#"{{"unsubscribe":{{"channel":"n{number}-{name}"}}}}"#));
                pairs.push((joins, leaves));
                lines.extend([join, leave]);
            }
            ann.send(&lines.join("\n"));
            bob.join(&format!("quiet{number}"));
        }
        let mut answered = std::collections::HashMap::new();
        for place in 0..2 * pairs.len() {
            let reply: Value = serde_json::from_str(&ann.next_reply()).unwrap();
            let outcome = if reply["error"].is_null() { "done" } else { "given up" };
            assert!(reply["error"].is_null() || reply["error"]["code"] == 111, "{reply}");
            answered.insert(reply["id"].as_u64().unwrap() as u32, (place, outcome));
        }
        for (joins, leaves) in pairs {
            assert!(answered[&joins].0 < answered[&leaves].0 && answered[&leaves].1 == "done");
        }
        eventually("the rooms are gone", || server.metric("rooms_active") == FRAMES as u64);
        assert_eq!((server.metric("head_lookups_waiting"), server.metric("listeners")), (0, FRAMES as u64));
    }
}

/// A client that goes while its subscribes wait for the database leaves no room and no question.
#[test]
fn a_client_that_is_gone_leaves_no_room_behind() {
    let server = TestServer::start();
    for round in 0..5 {
        let mut ann = server.connect("ann");
        let joins = (0..100)
            .map(|name| ann.with_id(&format!(r#"{{"subscribe":{{"channel":"r{round}-{name}"}}}}"#)).1);
        let joins: Vec<_> = joins.collect();
        ann.send(&joins.join("\n"));
        drop(ann);
    }
    eventually("the rooms are gone", || {
        ["connections", "listeners", "rooms_active", "head_lookups_waiting"]
            .iter()
            .all(|name| server.metric(name) == 0)
    });
}

/// Memory that rooms took goes when they go, except for those that stay.
#[test]
fn the_memory_of_rooms_that_are_gone_is_given_back() {
    const MIB: u64 = 1024 * 1024;
    let server = TestServer::with("[rooms]\nidle_timeout = \"3s\"\n");
    let mut ann = server.connect("ann");
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    };
    let before = resident();
    for batch in 0..120 {
        ann.join(&format!("typing:stays{batch}"));
        let publish = |name| format!(r#"{{"publish":{{"channel":"typing:{batch}-{name}","data":1}}}}"#);
        let (ids, lines): (Vec<_>, Vec<_>) = (0..500).map(|name| ann.with_id(&publish(name))).unzip();
        ann.send(&lines.join("\n"));
        for id in ids {
            assert_eq!(ann.reply_to(id), r#"{"publish":{}}"#);
        }
    }
    eventually("the rooms are gone", || server.metric("rooms_active") == 120);
    let kept = resident().saturating_sub(before);
    assert!(kept < 20 * MIB, "{} MiB stay", kept / MIB);
}
