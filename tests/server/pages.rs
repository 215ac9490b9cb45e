//! No frame of more than a mebibyte, whatever it answers: what a message may be in all, and lists page by page.
//! Every client of these tests fails when it gets a larger frame.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::client::Client;
use crate::support::server::TestServer;

const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// A connected client whose sender information is `bytes` long in each of its two places.
fn talkative(server: &TestServer, user: &str, room: &str, bytes: usize) -> Client {
    let info = format!(r#""{}""#, "i".repeat(bytes - 2));
    let mut client = server.connect_with(user, &format!(r#"{{"sub":"{user}","info":{info}}}"#));
    let claims = format!(r#"{{"sub":"{user}","channel":"{room}","info":{info}}}"#);
    let token = crate::support::token::token(&claims);
    let reply = client.ask(&format!(r#"{{"subscribe":{{"channel":"{room}","token":"{token}"}}}}"#));
    assert!(reply.starts_with(r#"{"subscribe":{"#), "{reply}");
    client
}

fn offsets(publications: &Value) -> Vec<u64> {
    let list = publications.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().map(|one| one["offset"].as_u64().unwrap()).collect()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:.200}"))
}

on_both_databases! {
    /// 300 numbers with 8 KB of sender information each are 2.4 MB.
    pages_are_cut_by_all_that_belongs_to_a_message(
        server,
        "[client]\ntoken_hmac_secret = 'a secret only the tests know'\n[api]\nkey = 'key'\n"
    ) {
        let mut ann = talkative(&server, "ann", "room", 4000);
        ann.publish_numbers("room", 1..=300);
        for _ in 0..300 {
            ann.next_push();
        }
        let mut bob = server.connect_with("bob", r#"{"sub":"bob"}"#);
        let (mut after, mut pages) = (0, 0);
        while after < 300 {
            let since = format!(r#""since":{{"offset":{after}}}"#);
            let answer = bob.ask(&format!(r#"{{"history":{{"channel":"room","limit":300,{since}}}}}"#));
            let offsets = offsets(&json(&answer)["history"]["publications"]);
            assert_eq!(offsets.first(), Some(&(after + 1)), "{offsets:?}");
            assert!(offsets.len() as u64 == 300 - after || answer.len() > FRAME_BYTES_MAX / 4, "half a page");
            (after, pages) = (*offsets.last().unwrap(), pages + 1);
        }
        assert!((4..=8).contains(&pages), "{pages} pages");
        let reverse = bob.ask(r#"{"history":{"channel":"room","limit":300,"reverse":true}}"#);
        assert_eq!(offsets(&json(&reverse)["history"]["publications"])[0], 300);
        // A resume: the front in the reply, the rest as pushes.
        let epoch = server.epoch();
        let reply = json(&bob.recover("room", 0, &epoch));
        assert_eq!(reply["subscribe"]["recovered"], true);
        let mut seen = offsets(&reply["subscribe"]["publications"]);
        while seen.len() < 300 {
            seen.push(json(&bob.next_push())["push"]["pub"]["offset"].as_u64().unwrap());
        }
        assert!(seen.iter().copied().eq(1..=300));
    }
}

on_both_databases! {
    /// Ten rooms with 100 KB each to recover are more than a frame.
    a_connect_reply_leaves_what_is_too_much_to_pushes(
        server,
        "[client]\ntoken_hmac_secret = 'a secret only the tests know'\n[api]\nkey = 'key'\n"
    ) {
        let data = format!(r#""{}""#, "d".repeat(50_000));
        let rooms: Vec<_> = (0..20).map(|number| format!("room{number}")).collect();
        let channels = json(&serde_json::to_string(&rooms).unwrap());
        let claims = serde_json::json!({ "sub": "ann", "channels": channels }).to_string();
        let mut ann = server.connect_with("ann", &claims);
        for room in &rooms {
            ann.publish(room, &data);
            ann.publish(room, "2");
        }
        let epoch = server.epoch();
        let position = |room: &String| format!(r#""{room}":{{"recover":true,"epoch":"{epoch}","offset":0}}"#);
        let subs: Vec<_> = rooms.iter().map(position).collect();
        let token = crate::support::token::token(&claims);
        let mut again = server.open();
        let reply = again.connect(&format!(r#"{{"token":"{token}","subs":{{{}}}}}"#, subs.join(",")), "ann");
        let subs = &json(&reply)["connect"]["subs"];
        let mut late = 0;
        for room in &rooms {
            assert_eq!(subs[room]["recovered"], true, "{room}");
            late += 2 - offsets(&subs[room]["publications"]).len();
        }
        assert!((10..40).contains(&late), "{late} messages came later");
        let mut seen: Vec<(String, u64)> = Vec::new();
        for room in &rooms {
            seen.extend(offsets(&subs[room]["publications"]).into_iter().map(|seq| (room.clone(), seq)));
        }
        for _ in 0..late {
            let push = json(&again.next_push());
            let room = push["push"]["channel"].as_str().unwrap().to_owned();
            let seq = push["push"]["pub"]["offset"].as_u64().unwrap();
            assert!(seq == 1 || seen.contains(&(room.clone(), 1)), "{room} comes in order");
            seen.push((room, seq));
        }
        assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 40, "each once");
    }
}

on_both_databases! {
    a_message_is_limited_with_its_tags_and_information(
        server,
        "[client]\ntoken_hmac_secret = 'a secret only the tests know'\n[api]\nkey = 'key'\n\
         [namespace.small]\nmessage_bytes_max = 100\npublish = 'everyone'\n"
    ) {
        let tags = |bytes: usize| format!(r#"{{"t":"{}"}}"#, "x".repeat(bytes - 8));
        let publish = |tags: &str| server.api("publish", &format!(r#"{{"channel":"small:a","data":1,"tags":{tags}}}"#));
        assert!(publish(&tags(99)).starts_with(r#"{"result":"#));
        assert_eq!(publish(&tags(100)), r#"{"error":{"code":106,"message":"limit exceeded"}}"#);
        let broadcast = format!(r#"{{"channels":["small:a"],"data":1,"tags":{}}}"#, tags(100));
        assert!(server.api("broadcast", &broadcast).contains(r#""code":106"#));
        let mut ann = server.connect_with("ann", r#"{"sub":"ann","info":"0123456789"}"#);
        let own = |bytes: usize| format!(r#"{{"publish":{{"channel":"small:a","data":"{}"}}}}"#, "x".repeat(bytes - 2));
        assert_eq!(ann.ask(&own(88)), r#"{"publish":{}}"#);
        assert_eq!(ann.ask(&own(89)), r#"{"error":{"code":106,"message":"limit exceeded"}}"#);
    }
}

/// All pages of a list, asked for two by two; `part` finds the list in an answer.
#[track_caller]
fn all_pages(mut ask: impl FnMut(&str) -> Value, part: impl Fn(&Value) -> Vec<String>) -> Vec<String> {
    let mut all = Vec::new();
    let mut next = String::new();
    loop {
        let answer = ask(&format!(r#""limit":2,"after":"{next}""#));
        let page = part(&answer);
        assert!(!page.is_empty() && page.len() <= 2, "{answer}");
        all.extend(page);
        match answer["next"].as_str() {
            Some(after) => next = after.to_owned(),
            None => return all,
        }
    }
}

fn texts(list: &Value, name: &str) -> Vec<String> {
    list.as_array().unwrap().iter().map(|one| one[name].as_str().unwrap().to_owned()).collect()
}

on_both_databases! {
    lists_come_page_by_page(server) {
        let mut ann = server.connect("ann");
        let users: Vec<_> = ["bob", "carl", "dora", "ed", "fay"].map(str::to_owned).into();
        for user in &users {
            server.api("contact_add", &format!(r#"{{"user":"ann","contact":"{user}"}}"#));
        }
        let mut rpc = |method: &str, data: &str| {
            let reply = ann.ask(&format!(r#"{{"rpc":{{"method":"{method}","data":{{{data}}}}}}}"#));
            json(&reply)["rpc"]["data"].clone()
        };
        let contacts = |answer: &Value| texts(&answer["contacts"], "user");
        assert_eq!(all_pages(|page| rpc("contacts.list", page), contacts), users);
        let by_api = |page: &str| json(&server.api("contacts", &format!(r#"{{"user":"ann",{page}}}"#)))["result"].clone();
        assert_eq!(all_pages(by_api, contacts), users);
        // Each has written once, the last one last; rooms of one moment are in the order of their ids.
        let rooms = texts(&rpc("contacts.list", "")["contacts"], "channel");
        for room in &rooms {
            server.api("publish", &format!(r#"{{"channel":"{room}","data":1}}"#));
        }
        let unread = |answer: &Value| texts(&answer["rooms"], "channel");
        let newest_first: Vec<_> = rooms.iter().rev().cloned().collect();
        assert_eq!(all_pages(|page| rpc("rooms.unread", page), unread), newest_first);
        assert_eq!(unread(&rpc("rooms.unread", "")), newest_first, "one page is enough");
        let members = r#""members":["m1","m2","m3","m4","m5"]"#;
        server.api("room_create", &format!(r#"{{"channel":"team","kind":"group",{members}}}"#));
        let info = |page: &str| json(&server.api("room_info", &format!(r#"{{"channel":"team",{page}}}"#)))["result"].clone();
        let members = |answer: &Value| texts(&answer["members"], "user");
        assert_eq!(all_pages(info, members), ["m1", "m2", "m3", "m4", "m5"]);
        for wrong in [r#""after":"x""#, r#""after":"1""#, r#""limit":0"#, r#""limit":1001"#] {
            let command = format!(r#"{{"rpc":{{"method":"rooms.unread","data":{{{wrong}}}}}}}"#);
            assert_eq!(ann.ask(&command), r#"{"error":{"code":107,"message":"bad request"}}"#, "{wrong}");
        }
    }
}

#[test]
fn listeners_and_channels_come_page_by_page() {
    let server = TestServer::start();
    let mut clients: Vec<_> = (0..5).map(|number| server.connect(&format!("user{number}"))).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.join("room");
        client.join(&format!("own{number}"));
    }
    let keys = |map: &Value| map.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let mut ids: Vec<_> = clients.iter().map(|client| client.id.clone()).collect();
    ids.sort();
    let raw = |method: &str, params: &str| {
        json(&server.post(&format!("/api/{method}"), "", params).body)["result"].clone()
    };
    let present = |page: &str| raw("presence", &format!(r#"{{"channel":"room",{page}}}"#));
    assert_eq!(all_pages(present, |answer| keys(&answer["presence"])), ids);
    let mut ann = server.connect("ann");
    let by_rpc = |page: &str| {
        let id = ann
            .call(&format!(r#"{{"rpc":{{"method":"presence.list","data":{{"channel":"room",{page}}}}}}}"#));
        let reply = json(&ann.next_reply());
        assert_eq!(reply["id"], id);
        reply["rpc"]["data"].clone()
    };
    assert_eq!(all_pages(by_rpc, |answer| keys(&answer["presence"])), ids);
    let channels = |page: &str| raw("channels", &format!("{{{page}}}"));
    let expected = ["own0", "own1", "own2", "own3", "own4", "room"];
    assert_eq!(all_pages(channels, |answer| keys(&answer["channels"])), expected);
}

/// 150 listeners with 8 KB of information each.
#[test]
fn a_presence_that_fits_no_frame_is_told_in_pages() {
    let server = TestServer::secured("");
    let mut clients: Vec<_> =
        (0..150).map(|number| talkative(&server, &format!("user{number}"), "room", 4000)).collect();
    let ann = &mut clients[0];
    let whole = ann.ask(r#"{"presence":{"channel":"room"}}"#);
    assert_eq!(whole, r#"{"error":{"code":108,"message":"not available"}}"#);
    let (mut seen, mut after) = (0, String::new());
    loop {
        let data = format!(r#"{{"channel":"room","after":"{after}"}}"#);
        let id = ann.call(&format!(r#"{{"rpc":{{"method":"presence.list","data":{data}}}}}"#));
        let reply = json(&ann.next_reply());
        assert_eq!(reply["id"], id);
        seen += reply["rpc"]["data"]["presence"].as_object().unwrap().len();
        let Some(next) = reply["rpc"]["data"]["next"].as_str() else { break };
        after = next.to_owned();
    }
    assert_eq!(seen, 150);
}
