//! Contacts, the rooms of two, read positions.

use std::sync::Barrier;

use crate::support::server::TestServer;

const DENIED: &str = r#"{"error":{"code":103,"message":"permission denied"}}"#;

/// The channel in an answer.
fn channel_in(text: &str) -> String {
    text.split_once(r#""channel":""#)
        .and_then(|(_, rest)| rest.split_once('"'))
        .expect("a channel")
        .0
        .to_owned()
}

fn add(user: &str) -> String {
    format!(r#"{{"rpc":{{"method":"contacts.add","data":{{"user":"{user}"}}}}}}"#)
}

on_both_databases! {
    contacts_by_rpc(server) {
        let (mut ann, mut bob) = (server.connect("ann"), server.connect("bob"));
        let reply = ann.ask(&add("bob"));
        let room = channel_in(&reply);
        assert!(room.starts_with("direct:"), "{room}");
        assert_eq!(reply, format!(r#"{{"rpc":{{"data":{{"user":"bob","channel":"{room}"}}}}}}"#));
        assert_eq!(bob.ask(&add("ann")), reply.replace("\"bob\"", "\"ann\""), "the same room from the other side");
        let list = r#"{"rpc":{"method":"contacts.list"}}"#;
        let expected = format!(r#"{{"rpc":{{"data":{{"contacts":[{{"user":"bob","channel":"{room}"}}]}}}}}}"#);
        assert_eq!(ann.ask(list), expected);
        let removed = ann.ask(r#"{"rpc":{"method":"contacts.remove","data":{"user":"bob"}}}"#);
        assert_eq!(removed, r#"{"rpc":{"data":{}}}"#);
        assert_eq!(ann.ask(list), r#"{"rpc":{"data":{"contacts":[]}}}"#);
        assert_eq!(ann.ask(&add("bob")), reply, "the room is still the same");
    }
}

on_both_databases! {
    contacts_by_api(server) {
        let added = server.api("contact_add", r#"{"user":"ann","contact":"bob"}"#);
        let room = channel_in(&added);
        assert_eq!(added, format!(r#"{{"result":{{"user":"bob","channel":"{room}"}}}}"#));
        let list = server.api("contacts", r#"{"user":"ann"}"#);
        assert_eq!(list, format!(r#"{{"result":{{"contacts":[{{"user":"bob","channel":"{room}"}}]}}}}"#));
        assert_eq!(server.api("contact_remove", r#"{"user":"ann","contact":"bob"}"#), r#"{"result":{}}"#);
        assert_eq!(server.api("contacts", r#"{"user":"ann"}"#), r#"{"result":{"contacts":[]}}"#);
        let info = server.api("room_info", &format!(r#"{{"channel":"{room}"}}"#));
        assert!(info.contains(r#""kind":"direct""#) && info.contains(r#""user":"ann""#), "{info}");
    }
}

on_both_databases! {
    /// Both add each other at the same moment, many times over.
    two_who_add_each_other_at_once_get_one_room(server) {
        let barrier = Barrier::new(2);
        let add_all = |user: &str, prefix: &str| -> Vec<String> {
            let mut client = server.connect(user);
            let one = |number| {
                barrier.wait();
                let (user, contact) = (format!("ann{number}"), format!("bob{number}"));
                let (user, contact) = if prefix == "ann" { (user, contact) } else { (contact, user) };
                channel_in(&server.api("contact_add", &format!(r#"{{"user":"{user}","contact":"{contact}"}}"#)))
            };
            let mut rooms: Vec<_> = (0..20).map(one).collect();
            barrier.wait();
            rooms.push(channel_in(&client.ask(&add(if user == "ann" { "bob" } else { "ann" }))));
            rooms
        };
        let (left, right) = std::thread::scope(|scope| {
            let left = scope.spawn(|| add_all("ann", "ann"));
            (add_all("bob", "bob"), left.join().unwrap())
        });
        assert_eq!(left, right);
        assert_eq!(left.iter().collect::<std::collections::BTreeSet<_>>().len(), 21, "one room for each pair");
    }
}

#[test]
fn adding_a_contact_activates_no_room() {
    let server = TestServer::start();
    let before = server.metric("activations_total");
    for number in 0..50 {
        server.api("contact_add", &format!(r#"{{"user":"ann","contact":"user{number}"}}"#));
    }
    assert_eq!((server.metric("rooms_active"), server.metric("activations_total")), (0, before));
}

on_both_databases! {
    /// Not even a server that lets everybody in opens the room of two to a third.
    a_direct_room_is_for_its_two_members(server) {
        let (mut ann, mut bob, mut eve) = (server.connect("ann"), server.connect("bob"), server.connect("eve"));
        let room = channel_in(&ann.ask(&add("bob")));
        ann.join(&room);
        bob.join(&room);
        for client in [&mut ann, &mut bob] {
            client.next_push();
        }
        ann.next_push();
        for command in ["subscribe", "history", "presence", "presence_stats"] {
            assert_eq!(eve.ask(&format!(r#"{{"{command}":{{"channel":"{room}"}}}}"#)), DENIED, "{command}");
        }
        let publish = format!(r#"{{"channel":"{room}","data":"eve was here"}}"#);
        assert_eq!(eve.ask(&format!(r#"{{"publish":{publish}}}"#)), DENIED);
        assert_eq!(eve.ask(&format!(r#"{{"rpc":{{"method":"publish","data":{publish}}}}}"#)), DENIED);
        let read = format!(r#"{{"rpc":{{"method":"rooms.read","data":{{"channel":"{room}","seq":1}}}}}}"#);
        assert_eq!(eve.ask(&read), DENIED);
        let recover = format!(r#"{{"subscribe":{{"channel":"{room}","recover":true,"flag":3}}}}"#);
        assert_eq!(eve.ask(&recover), DENIED);
        bob.publish(&room, "1");
        ann.expect_push(&format!(r#"{{"channel":"{room}","pub":{{"data":1,"info":{{"user":"bob","client":"<bob>"}},"offset":1}}}}"#));
        ann.expect_silence(&room);
    }
}

#[test]
fn the_anonymous_user_has_no_direct_rooms() {
    let server = TestServer::start();
    let mut nobody = server.connect("");
    assert_eq!(nobody.ask(&add("bob")), DENIED);
    assert_eq!(
        nobody.ask(r#"{"subscribe":{"channel":"direct:11111111-1111-1111-1111-111111111111"}}"#),
        DENIED
    );
}

#[test]
fn users_cannot_be_their_own_contact() {
    let server = TestServer::start();
    let refused = r#"{"error":{"code":107,"message":"bad request"}}"#;
    assert_eq!(server.connect("ann").ask(&add("ann")), refused);
    assert_eq!(server.connect("ann").ask(&add("")), refused);
}

#[test]
fn direct_rooms_cannot_be_made_by_hand() {
    let server = TestServer::start();
    let answer = server.api("room_create", r#"{"channel":"direct:mine","members":["ann","eve"]}"#);
    assert!(answer.starts_with(r#"{"error":{"code":108"#), "{answer}");
}

on_both_databases! {
    read_positions(server) {
        let (mut ann, mut bob) = (server.connect("ann"), server.connect("bob"));
        let room = channel_in(&ann.ask(&add("bob")));
        bob.join(&room);
        bob.publish_numbers(&room, 1..=5);
        let unread = r#"{"rpc":{"method":"rooms.unread"}}"#;
        let list = |read: u64| format!(
            r#"{{"rpc":{{"data":{{"rooms":[{{"channel":"{room}","head":5,"last_read":{read},"unread":{}}}]}}}}}}"#,
            5 - read
        );
        assert_eq!(ann.ask(unread), list(0));
        for (seq, last_read) in [(3, 3), (2, 3), (0, 3), (5, 5)] {
            let read = format!(r#"{{"rpc":{{"method":"rooms.read","data":{{"channel":"{room}","seq":{seq}}}}}}}"#);
            let expected = format!(r#"{{"rpc":{{"data":{{"last_read":{last_read},"unread":{}}}}}}}"#, 5 - last_read);
            assert_eq!(ann.ask(&read), expected, "never backwards");
            assert_eq!(ann.ask(unread), list(last_read));
        }
        server.restart();
        assert_eq!(server.connect("ann").ask(unread), list(5));
    }
}

#[test]
fn a_read_position_cannot_be_beyond_the_head() {
    let server = TestServer::start();
    let (mut ann, mut bob) = (server.connect("ann"), server.connect("bob"));
    let room = channel_in(&ann.ask(&add("bob")));
    bob.join(&room);
    bob.publish_numbers(&room, 1..=2);
    let read = format!(r#"{{"rpc":{{"method":"rooms.read","data":{{"channel":"{room}","seq":99}}}}}}"#);
    assert_eq!(ann.ask(&read), r#"{"rpc":{"data":{"last_read":2,"unread":0}}}"#);
    bob.publish_numbers(&room, 3..=3);
    assert!(ann.ask(r#"{"rpc":{"method":"rooms.unread"}}"#).contains(r#""last_read":2,"unread":1"#));
}
