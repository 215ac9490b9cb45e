//! Tokens that are good, bad and forged.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::issue::*;
use super::*;
use crate::limits::{INFO_BYTES_MAX, USER_ID_BYTES_MAX};

const SECRET: &str = "a secret";
const NOW: i64 = 1_700_000_000;

fn verifier() -> Verifier {
    Verifier::new(SECRET, None, None)
}

fn signed(algorithm: Algorithm, secret: &str, claims: &Value) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(algorithm), claims, &key).unwrap()
}

fn token(claims: &Value) -> String {
    signed(Algorithm::HS256, SECRET, claims)
}

fn connection(claims: &Value) -> Result<VerifiedConnection, TokenError> {
    verifier().verify_connection(&token(claims), NOW)
}

fn subscription(claims: &Value) -> Result<VerifiedSubscription, TokenError> {
    let channel = Channel::new("room").unwrap();
    verifier().verify_subscription(&token(claims), NOW, "42", Some(&channel))
}

fn is_invalid<T: fmt::Debug>(outcome: Result<T, TokenError>) -> bool {
    matches!(outcome, Err(TokenError::Invalid(_)))
}

#[test]
fn a_good_connection_token_tells_who_connects() {
    let who =
        connection(&json!({"sub": "42", "exp": NOW + 60, "iat": NOW, "info": {"name": "A b"}})).unwrap();
    assert_eq!(&**who.user(), "42");
    assert_eq!(who.info().map(|info| &**info), Some(r#"{"name":"A b"}"#));
    assert_eq!(who.expires_at(), Some(NOW + 60));
    assert!(who.subscriptions().is_empty());
}

#[test]
fn without_a_subject_the_user_is_anonymous() {
    for claims in
        [json!({}), json!({"sub": null}), json!({"sub": ""}), json!({"info": null, "meta": {"x": 1}})]
    {
        let who = connection(&claims).unwrap();
        assert_eq!((&**who.user(), who.info(), who.expires_at()), ("", None, None), "{claims}");
    }
}

#[test]
fn tokens_are_valid_from_nbf_until_exp() {
    let expired = Err(TokenError::Expired);
    for (claims, wanted) in [
        (json!({"exp": NOW + 1}), Ok(Some(NOW + 1))),
        (json!({"exp": NOW}), expired),
        (json!({"exp": NOW - 1}), expired),
        (json!({"exp": 0}), expired),
        (json!({"exp": -5}), expired),
        (json!({"exp": NOW as f64 + 1.5}), Ok(Some(NOW + 1))),
        (json!({"exp": 1e300}), Ok(Some(i64::MAX))),
        (json!({"exp": null}), Ok(None)),
        (json!({"nbf": NOW}), Ok(None)),
        (json!({"nbf": NOW + 1}), expired),
        (json!({"nbf": NOW + 1, "exp": NOW + 60}), expired),
        (json!({"exp": NOW + 60, "expire_at": 0}), Ok(None)),
        (json!({"exp": NOW + 60, "expire_at": NOW + 5}), Ok(Some(NOW + 5))),
        (json!({"exp": NOW + 60, "expire_at": NOW + 500}), Ok(Some(NOW + 500))),
        (json!({"expire_at": NOW + 5}), Ok(Some(NOW + 5))),
        (json!({"exp": NOW + 60, "expire_at": NOW}), expired),
        (json!({"exp": NOW - 1, "expire_at": NOW + 500}), expired),
        (json!({"exp": NOW - 1, "expire_at": 0}), expired),
    ] {
        assert_eq!(connection(&claims).map(|who| who.expires_at()), wanted, "{claims}");
    }
    for claims in [json!({"exp": "soon"}), json!({"nbf": {}}), json!({"expire_at": [1]})] {
        assert!(is_invalid(connection(&claims)), "{claims}");
    }
}

#[test]
fn forged_tokens_are_invalid() {
    let claims = json!({"sub": "42", "exp": NOW + 60});
    let good = token(&claims);
    let (head, signature) = good.rsplit_once('.').unwrap();
    let other = token(&json!({"sub": "43"}));
    let (other_head, _) = other.rsplit_once('.').unwrap();
    let none = |header: &str| {
        // {"alg":"none"} and relatives in front of the claims {"sub":"42"}
        [format!("{header}.eyJzdWIiOiI0MiJ9."), format!("{header}.eyJzdWIiOiI0MiJ9.{signature}")]
    };
    let mut tokens = vec![
        String::new(),
        ".".into(),
        "..".into(),
        "...".into(),
        "x".into(),
        "a.b.c".into(),
        head.to_owned(),
        format!("{head}."),
        format!("{head}.AAAA"),
        format!("{other_head}.{signature}"),
        format!("{good}x"),
        format!(" {good}"),
        format!("{good}\n"),
        signed(Algorithm::HS256, "another secret", &claims),
        signed(Algorithm::HS256, "", &claims),
        signed(Algorithm::HS384, SECRET, &claims),
        signed(Algorithm::HS512, SECRET, &claims),
    ];
    tokens.extend(none("eyJhbGciOiJub25lIn0"));
    tokens.extend(none("eyJhbGciOiJOb25lIiwidHlwIjoiSldUIn0"));
    tokens.extend(none("eyJhbGciOiJSUzI1NiJ9"));
    tokens.extend(none("e30"));
    for token in tokens {
        assert!(is_invalid(verifier().verify_connection(&token, NOW)), "{token:?}");
    }
    assert!(verifier().verify_connection(&good, NOW).is_ok());
}

#[test]
fn a_forged_expired_token_is_invalid() {
    let forged = signed(Algorithm::HS256, "another secret", &json!({"exp": NOW - 1}));
    assert!(is_invalid(verifier().verify_connection(&forged, NOW)));
}

#[test]
fn demanded_extensions_are_refused() {
    let header = Header { crit: Some(vec!["b64".into()]), ..Header::new(Algorithm::HS256) };
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let token = jsonwebtoken::encode(&header, &json!({"sub": "42"}), &key).unwrap();
    assert!(is_invalid(verifier().verify_connection(&token, NOW)));
}

#[test]
fn audience_and_issuer_must_match_if_configured() {
    let strict = Verifier::new(SECRET, Some("chat".into()), Some("shop".into()));
    for (claims, fits) in [
        (json!({"aud": "chat", "iss": "shop"}), true),
        (json!({"aud": ["mail", "chat"], "iss": "shop"}), true),
        (json!({"aud": ["mail"], "iss": "shop"}), false),
        (json!({"aud": [], "iss": "shop"}), false),
        (json!({"aud": "mail", "iss": "shop"}), false),
        (json!({"aud": "chat", "iss": "shopper"}), false),
        (json!({"aud": "chat"}), false),
        (json!({"iss": "shop"}), false),
        (json!({}), false),
    ] {
        let outcome = strict.verify_connection(&token(&claims), NOW);
        assert_eq!(outcome.is_ok(), fits, "{claims}");
        assert!(fits || is_invalid(outcome), "{claims}");
        assert!(connection(&claims).is_ok(), "{claims}");
    }
}

#[test]
fn server_side_subscriptions_are_read() {
    let names = |claims: &Value| -> Vec<String> {
        let who = connection(claims).unwrap();
        who.subscriptions().iter().map(|sub| sub.channel.to_string()).collect()
    };
    assert_eq!(names(&json!({"channels": ["b", "a", "b"]})), ["a", "b"]);
    assert_eq!(names(&json!({"channels": ["a"], "subs": {"x": {}, "y": null}})), ["x", "y"]);
    assert_eq!(names(&json!({"channels": ["a"], "subs": {}})), ["a"]);
    let who = connection(&json!({"subs": {"x": {
        "info": {"i": 1}, "b64data": "WyAxIF0=",
    }}}))
    .unwrap();
    assert_eq!(
        who.subscriptions(),
        [ServerSubscription {
            channel: Channel::new("x").unwrap(),
            info: Some(Arc::from(r#"{"i":1}"#)),
            data: Some(Arc::from("[1]")),
        }]
    );
}

#[test]
fn attachments_may_come_in_base64() {
    let info = |claims: &Value| connection(claims).map(|who| who.info().map(ToString::to_string));
    assert_eq!(info(&json!({"b64info": "eyAiYSI6IDEgfQ=="})), Ok(Some(r#"{"a":1}"#.into())));
    assert_eq!(info(&json!({"b64info": "MQ==", "info": 2})), Ok(Some("1".into())));
    assert_eq!(info(&json!({"b64info": "", "info": 2})), Ok(Some("2".into())));
    for text in ["%", "MQ", "e30x", "/w=="] {
        assert!(is_invalid(info(&json!({"b64info": text}))), "{text}");
    }
}

#[test]
fn claims_that_are_too_large_or_senseless_are_invalid() {
    let fits = "x".repeat(INFO_BYTES_MAX - 2);
    assert!(connection(&json!({"info": fits, "sub": "u".repeat(USER_ID_BYTES_MAX)})).is_ok());
    for claims in [
        json!({"info": format!("{fits}x")}),
        json!({"subs": {"c": {"info": format!("{fits}x")}}}),
        json!({"subs": {"c": {"data": format!("{fits}x")}}}),
        json!({"sub": "u".repeat(USER_ID_BYTES_MAX + 1)}),
        json!({"sub": "a\u{0}"}),
        json!({"sub": 42}),
        json!({"channels": ["a b"]}),
        json!({"channels": [""]}),
        json!({"channels": "a"}),
        json!({"subs": {"": {}}}),
        json!({"subs": ["a"]}),
        json!({"channel": "room"}),
        json!([]),
        json!("x"),
        json!(null),
    ] {
        assert!(is_invalid(connection(&claims)), "{claims}");
    }
    assert!(connection(&json!({"channel": ""})).is_ok());
}

#[test]
fn a_subscription_token_is_for_one_user_and_channel() {
    let good = json!({"sub": "42", "channel": "room", "exp": NOW + 9, "info": [1], "data": {"d": 2}});
    let verified = subscription(&good).unwrap();
    assert_eq!(verified.channel().as_str(), "room");
    assert_eq!(verified.info().map(|info| &**info), Some("[1]"));
    assert_eq!(verified.data().map(|data| &**data), Some(r#"{"d":2}"#));
    assert_eq!(verified.expires_at(), Some(NOW + 9));
    for (claims, wanted) in [
        (json!({"sub": "42", "channel": "other"}), TokenError::Mismatch),
        (json!({"sub": "43", "channel": "room"}), TokenError::Mismatch),
        (json!({"channel": "room"}), TokenError::Mismatch),
        (json!({"sub": "42", "channel": "room", "exp": NOW}), TokenError::Expired),
        (json!({"sub": "42", "channel": "room", "nbf": NOW + 1}), TokenError::Expired),
        (json!({"sub": "42", "channel": "room", "expire_at": 7}), TokenError::Expired),
    ] {
        assert_eq!(subscription(&claims), Err(wanted), "{claims}");
    }
    for claims in [
        json!({"sub": "42"}),
        json!({"sub": "42", "channel": ""}),
        json!({"sub": "42", "channel": "a b"}),
        json!({"sub": "42", "channel": "room", "client": "c1"}),
    ] {
        assert!(is_invalid(subscription(&claims)), "{claims}");
    }
}

#[test]
fn a_subscription_token_can_name_the_channel_itself() {
    let anonymous = token(&json!({"channel": "room"}));
    let verified = verifier().verify_subscription(&anonymous, NOW, "", None).unwrap();
    assert_eq!(verified.channel().as_str(), "room");
    assert_eq!(verifier().verify_subscription(&anonymous, NOW, "42", None), Err(TokenError::Mismatch));
}

#[test]
fn issued_tokens_are_verified() {
    let channel = Channel::new("room").unwrap();
    let channels = [channel.clone()];
    let request = TokenRequest {
        user: "42",
        expires_at: Some(NOW + 60),
        info: Some(r#"{ "name":"A" }"#),
        channels: &channels,
        ..TokenRequest::default()
    };
    let who = verifier().verify_connection(&issue(SECRET, &request).unwrap(), NOW).unwrap();
    assert_eq!((&**who.user(), who.expires_at()), ("42", Some(NOW + 60)));
    assert_eq!(who.info().map(|info| &**info), Some(r#"{"name":"A"}"#));
    assert_eq!(who.subscriptions()[0].channel, channel);
    let request = TokenRequest { user: "42", channel: Some(&channel), ..TokenRequest::default() };
    let token = issue(SECRET, &request).unwrap();
    assert!(verifier().verify_subscription(&token, NOW, "42", Some(&channel)).is_ok());
    assert!(is_invalid(verifier().verify_connection(&token, NOW)));
    let bad = TokenRequest { info: Some("{"), ..TokenRequest::default() };
    assert!(matches!(issue(SECRET, &bad), Err(IssueError::Info(_))));
}

#[test]
fn the_secret_is_not_printed() {
    assert!(!format!("{:?}", verifier()).contains(SECRET));
}
