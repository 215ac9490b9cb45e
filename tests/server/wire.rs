//! The exact text of every reply and push. Ids and epochs are replaced by names.

use crate::support::server::TestServer;

const ACK: &str = r#"{"publish":{}}"#;

#[test]
fn connect() {
    let server = TestServer::start();
    let mut ann = server.open();
    let reply = ann.connect(r#"{"name":"js"}"#, "ann");
    assert_eq!(reply, r#"{"connect":{"client":"<ann>","version":"V","ping":25,"pong":true}}"#);
}

#[test]
fn ids_may_start_anywhere_and_members_nobody_knows_are_ignored() {
    let server = TestServer::start();
    let mut ann = server.open();
    ann.send(r#"{"future":{"a":[1]},"id":4294967295,"connect":{"headers":{"a":"b"},"flag":3,"what":1}}"#);
    assert!(ann.next_reply().starts_with(r#"{"id":4294967295,"connect":{"client":""#));
    ann.send(r#"{"id":7,"ping":{}}"#);
    ann.expect_reply(r#"{"id":7,"ping":{}}"#);
}

#[test]
fn connect_and_subscribes_in_one_frame_are_answered_in_order() {
    let server = TestServer::start();
    let mut ann = server.open();
    ann.send("{\"connect\":{\"name\":\"js\"},\"id\":1}\n{\"subscribe\":{\"channel\":\"a\",\"flag\":1},\"id\":2}\n{\"subscribe\":{\"channel\":\"b\",\"flag\":1},\"id\":3}\n");
    assert!(ann.next_reply().starts_with(r#"{"id":1,"connect""#));
    let subscribed = r#""subscribe":{"recoverable":true,"positioned":true,"epoch":"E"}}"#;
    let mut replies = [ann.next_reply(), ann.next_reply()].map(|reply| ann.plain(&reply));
    replies.sort();
    assert_eq!(replies, [format!(r#"{{"id":2,{subscribed}"#), format!(r#"{{"id":3,{subscribed}"#)]);
}

on_both_databases! {
    subscribe_and_publish(server) {
        let (mut ann, mut bob) = (server.connect("ann"), server.connect("bob"));
        let fresh = r#"{"subscribe":{"recoverable":true,"positioned":true,"epoch":"E"}}"#;
        assert_eq!(ann.join("room"), fresh);
        assert_eq!(ann.ask(r#"{"publish":{"channel":"room","data":{"b": [1.50, "é\n"], "a": null}}}"#), ACK);
        let push = r#"{"channel":"room","pub":{"data":{"b": [1.50, "é\n"], "a": null},"info":{"user":"ann","client":"<ann>"},"offset":1}}"#;
        ann.expect_push(push);
        let later = r#"{"subscribe":{"recoverable":true,"positioned":true,"epoch":"E","offset":1}}"#;
        assert_eq!(bob.join("room"), later);
        bob.expect_silence("room");
        assert_eq!(ann.ask(r#"{"publish":{"channel":"room","data":2}}"#), ACK);
        let push = r#"{"channel":"room","pub":{"data":2,"info":{"user":"ann","client":"<ann>"},"offset":2}}"#;
        ann.expect_push(push);
        bob.expect_push(push);
    }
}

on_both_databases! {
    a_backend_publishes_without_sender_and_with_tags(server) {
        let mut ann = server.connect("ann");
        ann.join("room");
        let published = server.api("publish", r#"{"channel":"room","data":{"a":
            1},"tags":{"k":"v"}}"#);
        assert_eq!(published, r#"{"result":{"offset":1,"epoch":"E"}}"#);
        // A line break of a payload would end the line of a JSON client; all else stays as it is.
        let line_break = if server.speaks_protobuf { '\n' } else { ' ' };
        ann.expect_push(&format!(
            r#"{{"channel":"room","pub":{{"data":{{"a":{line_break}            1}},"offset":1,"tags":{{"k":"v"}}}}}}"#
        ));
    }
}

on_both_databases! {
    recovery(server) {
        let epoch = server.epoch();
        let mut ann = server.connect("ann");
        ann.publish_numbers("room", 1..=3);
        let reply = ann.recover("room", 1, &epoch);
        let info = r#""info":{"user":"ann","client":"<ann>"}"#;
        assert_eq!(reply, format!(r#"{{"subscribe":{{"recoverable":true,"positioned":true,"epoch":"E","offset":1,"was_recovering":true,"recovered":true,"publications":[{{"data":2,{info},"offset":2}},{{"data":3,{info},"offset":3}}]}}}}"#));
        let reply = server.connect("bob").recover("room", 3, &epoch);
        assert_eq!(reply, r#"{"subscribe":{"recoverable":true,"positioned":true,"epoch":"E","offset":3,"was_recovering":true,"recovered":true}}"#);
    }
}

on_both_databases! {
    recovery_that_fails(server) {
        let mut ann = server.connect("ann");
        ann.publish_numbers("room", 1..=3);
        let failed = r#"{"subscribe":{"recoverable":true,"positioned":true,"epoch":"E","offset":3,"was_recovering":true}}"#;
        assert_eq!(ann.recover("room", 1, "otherepoch"), failed);
        assert_eq!(server.connect("bob").recover("room", 4, &server.epoch()), failed);
        assert_eq!(server.connect("cid").recover("room", 0, "_"), failed);
        let reject = r#"{"subscribe":{"channel":"room","recover":true,"offset":1,"epoch":"other","flag":3}}"#;
        let mut dan = server.connect("dan");
        assert_eq!(dan.ask(reject), r#"{"error":{"code":112,"message":"unrecoverable position"}}"#);
        assert!(dan.join("room").contains(r#""offset":3"#), "after a refused recovery the channel is free");
    }
}

#[test]
fn a_recovery_without_position_means_from_the_beginning() {
    let server = TestServer::start();
    let mut ann = server.connect("ann");
    ann.publish_numbers("room", 1..=2);
    let reply = ann.ask(r#"{"subscribe":{"channel":"room","flag":3,"recover":true}}"#);
    assert!(
        reply.contains(r#""publications":[{"data":1,"#) && reply.contains(r#""recovered":true"#),
        "{reply}"
    );
    assert!(!reply.contains(r#""offset":0"#), "{reply}");
}

on_both_databases! {
    history(server) {
        let mut ann = server.connect("ann");
        let empty = r#"{"history":{"publications":[],"epoch":"E","offset":0}}"#;
        assert_eq!(ann.ask(r#"{"history":{"channel":"room","limit":-1}}"#), empty);
        for number in 1..=4 {
            server.api("publish", &format!(r#"{{"channel":"room","data":{number}}}"#));
        }
        for (options, offsets) in [
            ("", vec![]),
            (r#","limit":0"#, vec![]),
            (r#","limit":-1"#, vec![1, 2, 3, 4]),
            (r#","limit":2"#, vec![1, 2]),
            (r#","limit":2,"reverse":true"#, vec![4, 3]),
            (r#","limit":-1,"since":{"offset":2,"epoch":"EPOCH"}"#, vec![3, 4]),
            (r#","limit":1,"since":{"offset":1}"#, vec![2]),
            (r#","limit":9,"since":{"offset":3},"reverse":true"#, vec![2, 1]),
            (r#","limit":9,"since":{"offset":4}"#, vec![]),
            (r#","limit":9,"since":{"offset":99}"#, vec![]),
        ] {
            let options = options.replace("EPOCH", &server.epoch());
            let list: Vec<_> = offsets.iter().map(|n| format!(r#"{{"data":{n},"offset":{n}}}"#)).collect();
            let expected = format!(r#"{{"history":{{"publications":[{}],"epoch":"E","offset":4}}}}"#, list.join(","));
            assert_eq!(ann.ask(&format!(r#"{{"history":{{"channel":"room"{options}}}}}"#)), expected, "{options}");
        }
    }
}

#[test]
fn contradictory_history_requests_are_refused() {
    let server = TestServer::start();
    let mut ann = server.connect("ann");
    ann.publish_numbers("room", 1..=1);
    for (options, error) in [
        (r#""limit":9,"since":{"offset":0},"reverse":true"#, r#""code":107,"message":"bad request""#),
        (
            r#""limit":9,"since":{"offset":0,"epoch":"other"}"#,
            r#""code":112,"message":"unrecoverable position""#,
        ),
        (r#""limit":9,"since":{"offset":-1}"#, r#""code":107,"message":"bad request""#),
        (r#""limit":"9""#, r#""code":107,"message":"bad request""#),
    ] {
        let reply = ann.ask(&format!(r#"{{"history":{{"channel":"room",{options}}}}}"#));
        assert_eq!(reply, format!(r#"{{"error":{{{error}}}}}"#), "{options}");
    }
}

#[test]
fn one_history_answer_has_at_most_300_publications() {
    let server = TestServer::start();
    let mut ann = server.connect("ann");
    ann.publish_numbers("room", 1..=350);
    let reply = ann.ask(r#"{"history":{"channel":"room","limit":-1}}"#);
    assert_eq!(reply.matches(r#""data":"#).count(), 300);
    assert!(reply.ends_with(r#""epoch":"E","offset":350}}"#), "{}", &reply[reply.len() - 60..]);
}

#[test]
fn presence() {
    let server = TestServer::start();
    let (mut ann, mut bob) = (server.connect("ann"), server.connect("bob"));
    assert_eq!(ann.ask(r#"{"presence":{"channel":"room"}}"#), r#"{"presence":{"presence":{}}}"#);
    ann.join("room");
    bob.join("room");
    let both = [r#""<ann>":{"user":"ann","client":"<ann>"}"#, r#""<bob>":{"user":"bob","client":"<bob>"}"#];
    let reply = ann.ask(r#"{"presence":{"channel":"room"}}"#);
    let either = [both.join(","), [both[1], both[0]].join(",")];
    assert!(
        either.iter().any(|list| reply == format!(r#"{{"presence":{{"presence":{{{list}}}}}}}"#)),
        "{reply}"
    );
    bob.ask(r#"{"unsubscribe":{"channel":"room"}}"#);
    let reply = ann.ask(r#"{"presence":{"channel":"room"}}"#);
    assert_eq!(reply, format!(r#"{{"presence":{{"presence":{{{}}}}}}}"#, both[0]));
}

#[test]
fn presence_stats_count_clients_and_distinct_users() {
    let server = TestServer::start();
    let stats = r#"{"presence_stats":{"channel":"room"}}"#;
    let counts =
        |clients, users| format!(r#"{{"presence_stats":{{"num_clients":{clients},"num_users":{users}}}}}"#);
    let mut ann = server.connect("ann");
    assert_eq!(ann.ask(stats), counts(0, 0));
    ann.join("room");
    let mut more = ["ann", "", "", "bob"].map(|user| server.connect(user));
    for client in &mut more {
        client.join("room");
    }
    assert_eq!(ann.ask(stats), counts(5, 3));
    drop(more);
    crate::support::eventually("the others are gone", || ann.ask(stats) == counts(1, 1));
}

#[test]
fn unsubscribe_also_when_not_subscribed() {
    let server = TestServer::start();
    let (mut ann, mut bob) = (server.connect("ann"), server.connect("bob"));
    ann.join("room");
    for _ in 0..2 {
        assert_eq!(ann.ask(r#"{"unsubscribe":{"channel":"room"}}"#), r#"{"unsubscribe":{}}"#);
    }
    bob.publish("room", "1");
    ann.expect_silence("room");
}

#[test]
fn unknown_rpc_methods_of_ours_and_of_others() {
    let server = TestServer::start();
    let mut ann = server.connect("ann");
    let unknown = r#"{"error":{"code":104,"message":"method not found"}}"#;
    for misspelt in ["contacts.ad", "rooms.", "presence.list.more"] {
        assert_eq!(ann.ask(&format!(r#"{{"rpc":{{"method":"{misspelt}","data":{{}}}}}}"#)), unknown);
    }
    let elsewhere = r#"{"error":{"code":108,"message":"not available"}}"#;
    for foreign in [r#""method":"getCurrentYear","#, r#""method":"contactsadd","#, r#""method":"","#, ""] {
        assert_eq!(ann.ask(&format!(r#"{{"rpc":{{{foreign}"data":{{}}}}}}"#)), elsewhere);
    }
}

on_both_databases! {
    rpc_publish_tells_the_position_and_is_done_once(server) {
        let mut ann = server.connect("ann");
        ann.join("room");
        let publish = r#"{"rpc":{"method":"publish","data":{"channel":"room","data":"a","key":"k1"}}}"#;
        for _ in 0..2 {
            assert_eq!(ann.ask(publish), r#"{"rpc":{"data":{"offset":1,"epoch":"E"}}}"#);
        }
        ann.expect_push(r#"{"channel":"room","pub":{"data":"a","info":{"user":"ann","client":"<ann>"},"offset":1}}"#);
        ann.expect_silence("room");
        let mut bob = server.connect("bob");
        assert_eq!(bob.ask(publish), r#"{"rpc":{"data":{"offset":2,"epoch":"E"}}}"#, "keys are per sender");
    }
}

#[test]
fn joins_and_leaves() {
    let server = TestServer::start();
    let (mut ann, mut bob) = (server.connect("ann"), server.connect("bob"));
    let event = |kind, name| {
        format!(r#"{{"channel":"talk:a","{kind}":{{"info":{{"user":"{name}","client":"<{name}>"}}}}}}"#)
    };
    ann.join("talk:a");
    ann.expect_push(&event("join", "ann"));
    bob.join("talk:a");
    bob.expect_push(&event("join", "bob"));
    ann.expect_push(&event("join", "bob"));
    assert_eq!(bob.ask(r#"{"unsubscribe":{"channel":"talk:a"}}"#), r#"{"unsubscribe":{}}"#);
    ann.expect_push(&event("leave", "bob"));
    bob.join("talk:a");
    bob.expect_push(&event("join", "bob"));
    ann.expect_push(&event("join", "bob"));
    drop(bob);
    ann.expect_push(&event("leave", "bob"));
}

#[test]
fn large_rooms_send_no_joins_and_list_nobody() {
    let server =
        TestServer::with("[namespace.big]\njoin_leave_max_listeners = 2\npresence_max_listeners = 2\n");
    let mut clients = ["ann", "bob", "cid"].map(|user| server.connect(user));
    for client in &mut clients {
        client.join("big:a");
    }
    let [ann, bob, cid] = &mut clients;
    let join =
        |name| format!(r#"{{"channel":"big:a","join":{{"info":{{"user":"{name}","client":"<{name}>"}}}}}}"#);
    ann.expect_push(&join("ann"));
    ann.expect_push(&join("bob"));
    bob.expect_push(&join("bob"));
    for client in [ann, bob, cid] {
        client.expect_silence("big:a");
        let list = client.ask(r#"{"presence":{"channel":"big:a"}}"#);
        assert_eq!(list, r#"{"error":{"code":108,"message":"not available"}}"#);
    }
}

#[test]
fn an_ephemeral_namespace_has_no_positions() {
    let server = TestServer::start();
    let mut ann = server.connect("ann");
    assert_eq!(ann.join("typing:a"), r#"{"subscribe":{}}"#);
    ann.publish("typing:a", "true");
    ann.expect_push(r#"{"channel":"typing:a","pub":{"data":true,"info":{"user":"ann","client":"<ann>"}}}"#);
    let reply = ann.ask(r#"{"history":{"channel":"typing:a","limit":-1}}"#);
    assert_eq!(reply, r#"{"error":{"code":108,"message":"not available"}}"#);
    assert_eq!(server.api("publish", r#"{"channel":"typing:a","data":1}"#), r#"{"result":{}}"#);
    ann.expect_push(r#"{"channel":"typing:a","pub":{"data":1}}"#);
}

#[test]
fn server_side_subscriptions_by_the_claim_channels() {
    let server = TestServer::secured("");
    let mut ann = server.open();
    let token = crate::support::token::token(r#"{"sub":"ann","channels":["b","a"],"info":{"name":"A"}}"#);
    let reply = ann.connect(&format!(r#"{{"token":"{token}"}}"#), "ann");
    let sub = r#"{"recoverable":true,"positioned":true,"epoch":"E"}"#;
    let forms = [format!(r#""a":{sub},"b":{sub}"#), format!(r#""b":{sub},"a":{sub}"#)];
    let whole = |subs| {
        format!(r#"{{"connect":{{"client":"<ann>","version":"V","subs":{{{subs}}},"ping":25,"pong":true}}}}"#)
    };
    assert!(forms.iter().any(|subs| reply == whole(subs)), "{reply}");
    ann.publish("a", "1");
    ann.expect_push(r#"{"channel":"a","pub":{"data":1,"info":{"user":"ann","client":"<ann>","conn_info":{"name":"A"}},"offset":1}}"#);
}

#[test]
fn server_side_subscriptions_by_the_claim_subs() {
    let server = TestServer::secured("");
    let mut ann = server.open();
    let claims = r#"{"sub":"ann","channels":["b"],"subs":{"a":{"info":{"role":"x"},"data":{"d":1}}}}"#;
    let reply = ann.connect(&format!(r#"{{"token":"{}"}}"#, crate::support::token::token(claims)), "ann");
    assert_eq!(
        reply,
        r#"{"connect":{"client":"<ann>","version":"V","subs":{"a":{"recoverable":true,"positioned":true,"epoch":"E","data":{"d":1}}},"ping":25,"pong":true}}"#
    );
    ann.publish("a", "1");
    ann.expect_push(r#"{"channel":"a","pub":{"data":1,"info":{"user":"ann","client":"<ann>","chan_info":{"role":"x"}},"offset":1}}"#);
}

#[test]
fn users_are_subscribed_to_their_personal_channel() {
    let server = TestServer::with("[namespace.own]\npersonal = true\njoin_leave = false\n");
    let mut ann = server.open();
    let reply = ann.connect(r#"{"data":{"user":"ann"}}"#, "ann");
    assert!(
        reply.contains(r#""subs":{"own:#ann":{"recoverable":true,"positioned":true,"epoch":"E"}}"#),
        "{reply}"
    );
    let mut bob = server.connect("bob");
    server.api("publish", r##"{"channel":"own:#ann","data":1}"##);
    ann.expect_push(r##"{"channel":"own:#ann","pub":{"data":1,"offset":1}}"##);
    let refused = r#"{"error":{"code":103,"message":"permission denied"}}"#;
    assert_eq!(bob.ask(r##"{"subscribe":{"channel":"own:#ann"}}"##), refused);
    assert_eq!(bob.ask(r##"{"publish":{"channel":"own:#ann","data":1}}"##), refused);
}

on_both_databases! {
    server_side_subscriptions_recover_at_connect(server, "[namespace.own]\npersonal = true\njoin_leave = false\n") {
        drop(server.connect("ann"));
        for number in 1..=3 {
            server.api("publish", &format!(r##"{{"channel":"own:#ann","data":{number}}}"##));
        }
        let mut ann = server.open();
        let epoch = server.epoch();
        let reply = ann.connect(&format!(r##"{{"data":{{"user":"ann"}},"subs":{{"own:#ann":{{"recover":true,"offset":1,"epoch":"{epoch}"}}}}}}"##), "ann");
        assert!(reply.contains(r##""subs":{"own:#ann":{"recoverable":true,"positioned":true,"epoch":"E","offset":1,"was_recovering":true,"recovered":true,"publications":[{"data":2,"offset":2},{"data":3,"offset":3}]}}"##), "{reply}");
        server.api("publish", r##"{"channel":"own:#ann","data":4}"##);
        ann.expect_push(r##"{"channel":"own:#ann","pub":{"data":4,"offset":4}}"##);

    }
}

#[test]
fn pushes_of_the_operator() {
    let server = TestServer::start();
    let mut ann = server.connect("ann");
    ann.join("room");
    assert_eq!(server.api("unsubscribe", r#"{"user":"ann","channel":"room"}"#), r#"{"result":{}}"#);
    ann.expect_push(r#"{"channel":"room","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}"#);
    assert_eq!(server.api("disconnect", r#"{"user":"ann"}"#), r#"{"result":{}}"#);
    assert_eq!(ann.expect_close(3503), "force disconnect");
}
