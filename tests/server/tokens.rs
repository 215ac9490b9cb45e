//! Tokens: who is let in, for how long, and what happens then.

use crate::support::server::TestServer;
use crate::support::token::{SECRET, seconds_from_now, signed, token};

const HS256: &str = r#"{"alg":"HS256"}"#;
const EXPIRED: &str = r#"{"error":{"code":109,"message":"token expired"}}"#;
const DENIED: &str = r#"{"error":{"code":103,"message":"permission denied"}}"#;

fn connect_with(token: &str) -> String {
    format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#)
}

fn subscribe_with(channel: &str, claims: &str) -> String {
    format!(r#"{{"subscribe":{{"channel":"{channel}","token":"{}"}}}}"#, token(claims))
}

#[test]
fn connecting_without_a_token_is_a_bad_request() {
    let server = TestServer::secured("");
    for connect in [r#"{"id":1,"connect":{}}"#, r#"{"id":1,"connect":{"data":{"user":"ann"},"token":""}}"#] {
        let mut client = server.open();
        client.send(connect);
        assert_eq!(client.expect_close(3501), "bad request");
    }
}

#[test]
fn tokens_that_are_none_are_refused() {
    let server = TestServer::secured("");
    let good = token(r#"{"sub":"ann"}"#);
    let unsigned = good.rsplit_once('.').unwrap().0;
    for bad in [
        "garbage".to_owned(),
        "a.b.c".to_owned(),
        format!("{unsigned}."),
        format!("{good}x"),
        signed(HS256, r#"{"sub":"ann"}"#, "another secret of some length"),
        signed(r#"{"alg":"none"}"#, r#"{"sub":"ann"}"#, SECRET),
        signed(r#"{"alg":"HS512"}"#, r#"{"sub":"ann"}"#, SECRET),
        signed(r#"{"alg":"RS256"}"#, r#"{"sub":"ann"}"#, SECRET),
        token(r#"{"sub":"ann","channel":"a"}"#),
        token(r#"{"sub":5}"#),
        token("[]"),
    ] {
        let mut client = server.open();
        client.send(&connect_with(&bad));
        assert_eq!(client.expect_close(3500), "invalid token", "{bad}");
    }
}

#[test]
fn after_an_expired_token_the_rest_of_the_frame_is_ignored() {
    let server = TestServer::secured("");
    for claims in [
        r#"{"sub":"ann","exp":100}"#.to_owned(),
        format!(r#"{{"sub":"ann","nbf":{}}}"#, seconds_from_now(100)),
        r#"{"sub":"ann","expire_at":100}"#.to_owned(),
    ] {
        let mut client = server.open();
        client.send(&format!(
            "{}\n{}",
            connect_with(&token(&claims)),
            r#"{"id":2,"subscribe":{"channel":"a"}}"#
        ));
        client.expect_reply(r#"{"id":1,"error":{"code":109,"message":"token expired"}}"#);
        client.websocket.socket.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(client.websocket.read(), None, "nothing but the error");
    }
}

#[test]
fn the_anonymous_user_may_connect_only_if_allowed() {
    let server = TestServer::secured("");
    let mut client = server.open();
    client.send(&connect_with(&token(r#"{"exp":99999999999}"#)));
    assert_eq!(client.expect_close(3507), "permission denied");
    let server = TestServer::secured("allow_anonymous = true\n");
    let mut client = server.open();
    let reply = client.connect(r#"{"data":{"user":"ann"}}"#, "nobody");
    assert_eq!(reply, r#"{"connect":{"client":"<nobody>","version":"V","ping":25,"pong":true}}"#);
    client.join("talk:a");
    client.expect_push(r#"{"channel":"talk:a","join":{"info":{"user":"","client":"<nobody>"}}}"#);
}

#[test]
fn the_connect_reply_tells_when_the_token_expires() {
    let server = TestServer::secured("");
    let claims = format!(r#"{{"sub":"ann","exp":{}}}"#, seconds_from_now(1000));
    let reply = server.open().connect(&format!(r#"{{"token":"{}"}}"#, token(&claims)), "ann");
    let ttl = reply.split_once(r#""expires":true,"ttl":"#).and_then(|(_, rest)| rest.split_once(','));
    let ttl: u64 = ttl.unwrap_or_else(|| panic!("{reply}")).0.parse().unwrap();
    assert!((900..=1000).contains(&ttl), "{reply}");
}

#[test]
fn a_token_may_be_good_until_the_end_of_time() {
    let server = TestServer::secured("");
    for exp in [i64::MAX, 253_402_300_800, 9_007_199_254_740_991] {
        let mut ann = server.connect_with("ann", &format!(r#"{{"sub":"ann","exp":{exp}}}"#));
        ann.join("room");
    }
}

#[test]
fn expire_at_wins_over_exp() {
    let server = TestServer::secured("");
    let claims = format!(r#"{{"sub":"ann","exp":{},"expire_at":0}}"#, seconds_from_now(1000));
    let reply = server.open().connect(&format!(r#"{{"token":"{}"}}"#, token(&claims)), "ann");
    assert_eq!(reply, r#"{"connect":{"client":"<ann>","version":"V","ping":25,"pong":true}}"#);
}

#[test]
fn refresh() {
    let server = TestServer::secured("");
    let mut ann = server.connect_with("ann", &format!(r#"{{"sub":"ann","exp":{}}}"#, seconds_from_now(1000)));
    let refresh = |claims: &str| format!(r#"{{"refresh":{{"token":"{}"}}}}"#, token(claims));
    let reply = ann.ask(&refresh(&format!(r#"{{"sub":"ann","exp":{}}}"#, seconds_from_now(5000))));
    assert!(reply.contains(r#""expires":true,"ttl":49"#) || reply.contains(r#""ttl":5000"#), "{reply}");
    assert!(reply.starts_with(r#"{"refresh":{"#), "{reply}");
    let reply = ann.ask(r#"{"refresh":{"token":""}}"#);
    assert_eq!(reply, r#"{"error":{"code":107,"message":"bad request"}}"#);
}

#[test]
fn a_refresh_that_fails_ends_the_connection() {
    let server = TestServer::secured("");
    for (claims, code, reason) in [
        (r#"{"sub":"ann","exp":100}"#, 3005, "connection expired"),
        (r#"{"sub":"bob"}"#, 3500, "invalid token"),
        (r#"{"sub":"ann","channel":"a"}"#, 3500, "invalid token"),
    ] {
        let mut ann = server.connect_with("ann", r#"{"sub":"ann"}"#);
        ann.call(&format!(r#"{{"refresh":{{"token":"{}"}}}}"#, token(claims)));
        assert_eq!(ann.expect_close(code), reason);
    }
}

#[test]
fn an_expired_connection_is_closed() {
    let server = TestServer::secured("expired_close_delay = \"30ms\"\n");
    let mut ann = server.connect_with("ann", &format!(r#"{{"sub":"ann","exp":{}}}"#, seconds_from_now(2)));
    assert_eq!(ann.expect_close(3005), "connection expired");
}

#[test]
fn a_refreshed_connection_stays() {
    let server = TestServer::secured("expired_close_delay = \"30ms\"\n");
    let soon = format!(r#"{{"sub":"ann","exp":{}}}"#, seconds_from_now(2));
    let (mut ann, mut bob) = (server.connect_with("ann", &soon), server.connect_with("ann", &soon));
    let refresh = ann.ask(&format!(r#"{{"refresh":{{"token":"{}"}}}}"#, token(r#"{"sub":"ann"}"#)));
    assert_eq!(refresh, r#"{"refresh":{}}"#);
    bob.expect_close(3005);
    ann.join("room");
}

#[test]
fn private_channels_need_a_subscription_token() {
    let server = TestServer::secured("");
    let mut ann = server.connect_with("ann", r#"{"sub":"ann"}"#);
    assert_eq!(ann.ask(r#"{"subscribe":{"channel":"$talk:a"}}"#), DENIED);
    let reply = ann.ask(&subscribe_with(
        "$talk:a",
        r#"{"sub":"ann","channel":"$talk:a","info":{"role":"x"},"data":{"d":1}}"#,
    ));
    assert_eq!(reply, r#"{"subscribe":{"recoverable":true,"positioned":true,"epoch":"E","data":{"d":1}}}"#);
    ann.expect_push(
        r#"{"channel":"$talk:a","join":{"info":{"user":"ann","client":"<ann>","chan_info":{"role":"x"}}}}"#,
    );
}

#[test]
fn a_namespace_may_demand_subscription_tokens() {
    let server = TestServer::secured("[namespace.vip]\ntoken_required = true\n");
    let mut ann = server.connect_with("ann", r#"{"sub":"ann"}"#);
    assert_eq!(ann.ask(r#"{"subscribe":{"channel":"vip:a"}}"#), DENIED);
    let reply = ann.ask(&subscribe_with("vip:a", r#"{"sub":"ann","channel":"vip:a"}"#));
    assert!(reply.starts_with(r#"{"subscribe""#), "{reply}");
}

#[test]
fn a_subscription_token_for_something_else_ends_the_connection() {
    let server = TestServer::secured("");
    for claims in
        [r#"{"sub":"ann","channel":"$b"}"#, r#"{"sub":"bob","channel":"$a"}"#, r#"{"channel":"$a"}"#]
    {
        let mut ann = server.connect_with("ann", r#"{"sub":"ann"}"#);
        ann.call(&subscribe_with("$a", claims));
        assert_eq!(ann.expect_close(3500), "invalid token");
    }
}

#[test]
fn expired_and_bad_subscription_tokens_are_refused() {
    let server = TestServer::secured("");
    let mut ann = server.connect_with("ann", r#"{"sub":"ann"}"#);
    assert_eq!(ann.ask(&subscribe_with("$a", r#"{"sub":"ann","channel":"$a","exp":100}"#)), EXPIRED);
    let other = signed(HS256, r#"{"sub":"ann","channel":"$a"}"#, "another secret of some length");
    for bad in ["garbage", &other, &token(r#"{"sub":"ann"}"#)] {
        assert_eq!(
            ann.ask(&format!(r#"{{"subscribe":{{"channel":"$a","token":"{bad}"}}}}"#)),
            DENIED,
            "{bad}"
        );
    }
}

#[test]
fn sub_refresh() {
    let server = TestServer::secured("expired_close_delay = \"30ms\"\n");
    let mut ann = server.connect_with("ann", r#"{"sub":"ann"}"#);
    let until = |seconds| format!(r#"{{"sub":"ann","channel":"$a","exp":{}}}"#, seconds_from_now(seconds));
    let reply = ann.ask(&subscribe_with("$a", &until(2)));
    assert!(reply.starts_with(r#"{"subscribe":{"expires":true,"ttl":"#), "{reply}");
    let sub_refresh = |token: &str| format!(r#"{{"sub_refresh":{{"channel":"$a","token":"{token}"}}}}"#);
    let reply = ann.ask(&sub_refresh(&token(&until(1000))));
    assert!(reply.starts_with(r#"{"sub_refresh":{"expires":true,"ttl":"#), "{reply}");
    let reply =
        ann.ask(&format!(r#"{{"sub_refresh":{{"token":"{}"}}}}"#, token(r#"{"sub":"ann","channel":"$a"}"#)));
    assert_eq!(reply, r#"{"sub_refresh":{}}"#, "without a channel, as an older SDK sends it");
    assert_eq!(ann.ask(&sub_refresh("garbage")), DENIED);
    assert_eq!(ann.ask(&sub_refresh("")), r#"{"error":{"code":107,"message":"bad request"}}"#);
    let other = format!(
        r#"{{"sub_refresh":{{"channel":"$b","token":"{}"}}}}"#,
        token(r#"{"sub":"ann","channel":"$b"}"#)
    );
    assert_eq!(ann.ask(&other), DENIED, "not subscribed");
}

/// Every SDK takes any other error here as the end of the subscription.
#[test]
fn an_expired_sub_refresh_makes_the_client_subscribe_again() {
    let server = TestServer::secured("");
    let mut ann = server.connect_with("ann", r#"{"sub":"ann"}"#);
    ann.ask(&subscribe_with("$a", r#"{"sub":"ann","channel":"$a"}"#));
    let expired = token(r#"{"sub":"ann","channel":"$a","exp":100}"#);
    let reply = ann.ask(&format!(r#"{{"sub_refresh":{{"channel":"$a","token":"{expired}"}}}}"#));
    assert_eq!(reply, r#"{"error":{"code":100,"message":"internal server error","temporary":true}}"#);
    ann.expect_push(r#"{"channel":"$a","unsubscribe":{"code":2501,"reason":"subscription expired"}}"#);
}

#[test]
fn a_refresh_with_other_channels_makes_the_client_reconnect() {
    let server = TestServer::secured("");
    let mut ann = server.connect_with("ann", r#"{"sub":"ann","channels":["a"]}"#);
    let refresh = |channel| {
        format!(
            r#"{{"refresh":{{"token":"{}"}}}}"#,
            token(&format!(r#"{{"sub":"ann","channels":["{channel}"]}}"#))
        )
    };
    assert_eq!(ann.ask(&refresh("a")), r#"{"refresh":{}}"#);
    ann.call(&refresh("b"));
    assert_eq!(ann.expect_close(3010), "insufficient state");
}

#[test]
fn server_side_subscriptions_that_cannot_be() {
    let server = TestServer::secured("");
    let many: Vec<_> = (0..129).map(|number| format!("\"room{number}\"")).collect();
    for (channels, code) in
        [("\"nope:a\"".to_owned(), 3501), (many.join(","), 3505), ("\"a b\"".to_owned(), 3500)]
    {
        let mut client = server.open();
        client.send(&connect_with(&token(&format!(r#"{{"sub":"ann","channels":[{channels}]}}"#))));
        client.expect_close(code);
    }
    crate::support::eventually("every room was left", || server.metric("listeners") == 0);
}

#[test]
fn an_expired_subscription_is_ended() {
    let server = TestServer::secured("expired_close_delay = \"30ms\"\n");
    let mut ann = server.connect_with("ann", r#"{"sub":"ann"}"#);
    ann.ask(&subscribe_with(
        "$a",
        &format!(r#"{{"sub":"ann","channel":"$a","exp":{}}}"#, seconds_from_now(2)),
    ));
    ann.expect_push(r#"{"channel":"$a","unsubscribe":{"code":2501,"reason":"subscription expired"}}"#);
    server.api("publish", r#"{"channel":"$a","data":1}"#);
    let presence = server.api("presence_stats", r#"{"channel":"$a"}"#);
    assert_eq!(presence, r#"{"result":{"num_clients":0,"num_users":0}}"#);
}

#[test]
fn tokens_are_checked_in_insecure_mode_too() {
    let server = TestServer::secured("insecure = true\n");
    let mut client = server.open();
    client.send(&connect_with("garbage"));
    assert_eq!(client.expect_close(3500), "invalid token");
    let mut ann = server.open();
    ann.connect(&format!(r#"{{"token":"{}","data":{{"user":"bob"}}}}"#, token(r#"{"sub":"ann"}"#)), "ann");
    ann.join("talk:a");
    ann.expect_push(r#"{"channel":"talk:a","join":{"info":{"user":"ann","client":"<ann>"}}}"#);
}

on_both_databases! {
    a_name_that_a_token_could_prove_is_not_believed(server, "[client]\ninsecure = true\ntoken_hmac_secret = \"a secret only the tests know\"\n[api]\nkey = \"key\"\n[namespace.own]\npersonal = true\n") {
        let mut ann = server.connect_with("ann", r#"{"sub":"ann"}"#);
        let added = server.api("contact_add", r#"{"user":"ann","contact":"bob"}"#);
        let room = added.split_once(r#""channel":""#).unwrap().1.split_once('"').unwrap().0.to_owned();
        ann.publish(&room, r#""private""#);
        server.api("publish", r##"{"channel":"own:#ann","data":"private"}"##);

        let mut eve = server.open();
        let reply = eve.connect(r#"{"data":{"user":"ann"}}"#, "eve");
        assert!(!reply.contains("#ann"), "{reply}");
        for channel in [room.as_str(), "own:#ann"] {
            for command in [
                format!(r#"{{"subscribe":{{"channel":"{channel}"}}}}"#),
                format!(r#"{{"history":{{"channel":"{channel}","limit":10}}}}"#),
                format!(r#"{{"presence":{{"channel":"{channel}"}}}}"#),
                format!(r#"{{"publish":{{"channel":"{channel}","data":1}}}}"#),
            ] {
                let reply = eve.ask(&command);
                assert_eq!(reply, r#"{"error":{"code":103,"message":"permission denied"}}"#, "{command}");
            }
        }
        let contacts = eve.ask(r#"{"rpc":{"method":"contacts.list"}}"#);
        assert!(!contacts.contains("direct:"), "{contacts}");
        eve.join("room");
        let presence = server.api("presence", r#"{"channel":"room"}"#);
        assert_eq!(presence, r#"{"result":{"presence":{"<eve>":{"user":"","client":"<eve>"}}}}"#);
    }
}

#[test]
fn the_command_line_makes_tokens_that_are_accepted() {
    let server = TestServer::secured("");
    let config = server.folder.0.join("roomcast.toml");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_roomcast"));
    command.args(["token", "--user", "ann", "--config"]).arg(config);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let token = String::from_utf8(output.stdout).unwrap();
    let reply = server.open().connect(&format!(r#"{{"token":"{}"}}"#, token.trim()), "ann");
    assert!(reply.starts_with(r#"{"connect":{"client":"<ann>""#), "{reply}");
}
