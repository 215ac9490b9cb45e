//! The server as an application sees it that uses the official Rust SDK in its default settings, which are Protobuf
//! over WebSocket: with tokens of a backend, over a network that breaks, while an operator ends what it has begun.
//!
//! Each test has rooms and users of its own. The server and the rest of the stage are made by `tests/sdk/stage`.

#![cfg(test)]

mod peer;
mod stage;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use centrifuge::{DeltaType, Error, HistoryOptions, StreamPosition, TokenError};

use crate::peer::{Peer, Seat, client, named, within};
use crate::stage::{api, post, token, url};

/// With white space, which is to come back.
const HELLO: &str = r#"{"input": "x", "text":"é"}"#;

/// Gives two tokens that expire soon, then some that do not.
fn short_lived(options: &str, asked: &AtomicU32) -> Result<String, TokenError> {
    let seconds = if asked.fetch_add(1, Ordering::SeqCst) < 2 { 2 } else { 3600 };
    stage::ask("GET", &format!("/token?{options}&seconds={seconds}"), "").map_err(TokenError::from)
}

async fn until_asked_thrice(asked: &AtomicU32) {
    within("the third token", async {
        while asked.load(Ordering::SeqCst) < 3 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
}

fn refusal<T: std::fmt::Debug>(answer: Result<T, Error>) -> u32 {
    match answer {
        Err(Error::Server(error)) => error.code,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_refreshed_before_it_expires() {
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let builder = client(&url()).get_token(move |_| {
        let token = short_lived("user=rust-ann", &count);
        async move { token.map(Some) }
    });
    let mut ann = Peer::connect(builder).await;
    let mut room = ann.subscribe("rust-refresh").await;
    until_asked_thrice(&asked).await;
    room.publish(HELLO).await;
    let sender = room.publications.next().await.info.clone();
    assert_eq!(sender.map(|info| info.user).as_deref(), Some("rust-ann"));
    ann.assert_stayed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_token_is_refreshed_before_it_expires() {
    let mut bob = Peer::connect(named("rust-bob")).await;
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let mut room = bob.seat("$rust-private", |builder| {
        builder.get_token(move |context| {
            let token = short_lived(&format!("user=rust-bob&channel={}", context.channel), &count);
            async move { token }
        })
    });
    room.subscribed.next().await;
    until_asked_thrice(&asked).await;
    room.publish(HELLO).await;
    room.publications.next().await;
    assert!(room.errors.none_waits() && room.subscribed.none_waits());
    let mut refused = bob.seat("$rust-other", |builder| builder);
    assert_eq!(refused.unsubscribed.next().await.code, 103);
    bob.assert_stayed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_good_token_is_turned_away_for_good() {
    for (bad, code) in [("no token at all", 3500), ("", 3501)] {
        let mut stranger = Peer::start(client(&url()).token(bad));
        assert_eq!(stranger.disconnected.next().await.code, code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_history_and_presence() {
    let mut ann = Peer::connect(named("rust-cid")).await;
    let mut bob = Peer::connect(named("rust-dan")).await;
    let mut room = ann.subscribe("rust-talk").await;
    let mut other = bob.subscribe("rust-talk").await;
    while room.joins.next().await.user != "rust-dan" {}
    for n in 1..=3 {
        room.publish(HELLO).await;
        for listener in [&mut room, &mut other] {
            let got = listener.publications.next().await;
            assert_eq!((&got.data[..], got.offset), (HELLO.as_bytes(), n));
            assert_eq!(got.info.as_ref().map(|info| info.user.as_str()), Some("rust-cid"));
        }
    }
    let newest = room.sub.history(HistoryOptions::new().limit(2).reverse(true)).await.expect("a page");
    let offsets: Vec<u64> = newest.publications.iter().map(|publication| publication.offset).collect();
    assert_eq!((newest.offset, offsets), (3, vec![3, 2]));
    assert_eq!(&newest.publications[0].data[..], HELLO.as_bytes());
    let first = StreamPosition::new(1, newest.epoch);
    let later = room.sub.history(HistoryOptions::new().limit(10).since(first)).await.expect("a page");
    assert_eq!(later.publications.len(), 2);
    assert_eq!(room.sub.presence().await.expect("presence").clients.len(), 2);
    let counts = room.sub.presence_stats().await.expect("counts");
    assert_eq!((counts.num_clients, counts.num_users), (2, 2));
    other.sub.unsubscribe();
    assert_eq!(room.leaves.next().await.user, "rust-dan");
}

/// 1000 messages are more than a reply has: the rest comes as pushes.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_cut_off_gets_what_it_missed_in_order() {
    let gate = post("/gate");
    let mut ann = Peer::connect(client(&gate).token(token("user=rust-eve&channels=rust-granted"))).await;
    let mut room = ann.subscribe("rust-missed").await;
    post("/publish?channel=rust-missed&from=1&to=5");
    for _ in 1..=5 {
        room.publications.next().await;
    }
    ann.connecting.next().await;
    post(&format!("/shut?gate={gate}"));
    ann.connecting.next().await;
    post("/publish?channel=rust-missed&from=6&to=1000");
    post("/publish?channel=rust-granted&from=1&to=20");
    post(&format!("/open?gate={gate}"));
    let again = room.subscribed.next().await;
    assert!(again.was_recovering && again.recovered);
    for n in 6..=1000 {
        let got = room.publications.next().await;
        assert_eq!((got.offset, &got.data[..]), (n, n.to_string().as_bytes()));
    }
    for n in 1..=20 {
        assert_eq!(ann.publications.next().await.offset, n);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_unsubscribes_and_disconnects() {
    let mut ann = Peer::connect(named("rust-fay")).await;
    let mut room = ann.subscribe("rust-ended").await;
    api("unsubscribe", r#"{"user":"rust-fay","channel":"rust-ended"}"#);
    assert_eq!(room.unsubscribed.next().await.code, 2000);
    ann.connecting.next().await;
    api("disconnect", r#"{"user":"rust-fay","disconnect":{"code":3000,"reason":"come back"}}"#);
    assert_eq!(ann.connecting.next().await.code, 3000);
    ann.connected.next().await;
    api("disconnect", r#"{"user":"rust-fay"}"#);
    assert_eq!(ann.disconnected.next().await.code, 3503);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_their_errors() {
    let mut ann = Peer::connect(named("rust-gus")).await;
    let mut room = ann.subscribe("rust-calls").await;
    for _ in 0..2 {
        let call = r#"{"channel":"rust-calls","data":1,"key":"k"}"#;
        let done = ann.client.rpc("publish", call).await.expect("a position");
        assert!(done.data.starts_with(br#"{"offset":1,"#), "{:?}", done.data);
    }
    room.publications.next().await;
    assert_eq!(refusal(ann.client.rpc("nobody.knows", HELLO).await), 108);
    assert_eq!(refusal(ann.client.publish("nowhere:at-all", HELLO).await), 102);
    ann.assert_stayed().await;
}

/// The subscription stands, and gets whole messages.
#[tokio::test(flavor = "multi_thread")]
async fn deltas_are_declined_and_the_sdk_goes_on_without_them() {
    let mut ann = Peer::connect(named("rust-hal")).await;
    let mut room: Seat = ann.seat("rust-deltas", |builder| builder.delta(DeltaType::Fossil));
    room.subscribed.next().await;
    for n in 1..=3 {
        room.publish(HELLO).await;
        let got = room.publications.next().await;
        assert_eq!((&got.data[..], got.offset), (HELLO.as_bytes(), n));
    }
    ann.assert_stayed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_json_come_back_where_the_namespace_allows_them() {
    let data: &[u8] = &[0, 1, 0xff, b'\n', b'{', 0x80];
    let ann = Peer::connect(named("rust-ida")).await;
    let mut room = ann.subscribe("raw:rust").await;
    room.sub.publish(data).await.expect("the publish is acknowledged");
    assert_eq!(&room.publications.next().await.data[..], data);
    let page = room.sub.history(HistoryOptions::new().limit(1)).await.expect("a page");
    assert_eq!(&page.publications[0].data[..], data);
    assert_eq!(refusal(ann.subscribe("rust-raw").await.sub.publish(data).await), 107);
}
