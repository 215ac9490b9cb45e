//! The rights table: every audience against every kind of caller, and what no audience lifts.

use super::rig::{SECURED, channel, draft, stranger, subscriber};
use crate::ids::Channel;
use crate::node::{AccessError, Caller, PublishError, Role, RoomKind, SubscribeError};
use crate::protocol::api::page::PageParams;
use crate::protocol::code::ErrorCode;
use crate::protocol::command::HistoryRequest;

/// A namespace for each audience, which holds for everything that may be asked.
fn audiences() -> String {
    let mut settings = SECURED.to_owned();
    for audience in ["nobody", "everyone", "users", "members", "subscribers"] {
        let subscribe = if audience == "subscribers" { "everyone" } else { audience };
        settings += &format!(
            "[namespace.{audience}]\nsubscribe = '{subscribe}'\npublish = '{audience}'\n\
             read_presence = '{audience}'\nread_history = '{audience}'\n"
        );
    }
    settings
}

/// The audiences that a caller belongs to: of nobody, everyone, users, members, subscribers.
const BELONGS: [(&str, Caller<'_>, [bool; 5]); 6] = [
    ("operator", Caller::Operator, [true, true, true, true, true]),
    ("anonymous", Caller::Client { user: "", subscribed: false }, [false, true, false, false, false]),
    (
        "anonymous subscriber",
        Caller::Client { user: "", subscribed: true },
        [false, true, false, false, true],
    ),
    ("user", Caller::Client { user: "bob", subscribed: false }, [false, true, true, false, false]),
    ("subscriber", Caller::Client { user: "bob", subscribed: true }, [false, true, true, false, true]),
    ("member", Caller::Client { user: "ann", subscribed: false }, [false, true, true, true, false]),
];

fn rooms() -> [Channel; 5] {
    ["nobody:a", "everyone:a", "users:a", "members:a", "subscribers:a"].map(channel)
}

fn history(channel: &Channel) -> HistoryRequest {
    HistoryRequest { channel: channel.clone(), limit: 1, since: None, reverse: false }
}

on_both_databases! {
    audiences_hold_for_publish_presence_and_history(rig, &audiences()) {
        let node = rig.handle();
        for room in rooms() {
            node.create_room(&room, RoomKind::Group, &[("ann", Role::Member)]).unwrap();
        }
        for (name, caller, belongs) in BELONGS {
            let outcome = rooms().map(|room| {
                let checks = [
                    node.check_publish(caller, draft(room.as_str(), "1")).map(drop).map_err(|e| e.code()),
                    node.presence(caller, &room).map(drop).map_err(|e| e.code()),
                    node.history(caller, &history(&room)).map(drop).map_err(|e| e.code()),
                ];
                assert_eq!(checks[0], checks[1], "{name} {room}");
                assert_eq!(checks[0], checks[2], "{name} {room}");
                checks[0]
            });
            let expected = belongs.map(|belongs| if belongs { Ok(()) } else { Err(ErrorCode::PermissionDenied) });
            assert_eq!(outcome, expected, "{name}");
        }
    }
}

on_both_databases! {
    audiences_hold_for_subscribe(rig, &audiences()) {
        let node = rig.handle();
        node.create_room(&channel("members:a"), RoomKind::Group, &[("ann", Role::Member)]).unwrap();
        let check = |caller, name: &str| node.check_subscribe(caller, &channel(name), false).map(drop);
        for (name, caller, belongs) in BELONGS {
            for (room, belongs) in ["nobody:a", "everyone:a", "users:a", "members:a"].into_iter().zip(belongs) {
                let expected = match caller {
                    Caller::Client { subscribed: true, .. } => Err(SubscribeError::AlreadySubscribed),
                    _ if belongs => Ok(()),
                    _ => Err(SubscribeError::Forbidden),
                };
                assert_eq!(check(caller, room), expected, "{name} {room}");
            }
        }
        let with_token = node.check_subscribe(stranger("bob"), &channel("nobody:a"), true);
        assert!(with_token.is_ok(), "a token allows what the audience does not");
    }
}

on_both_databases! {
    private_rooms_stay_private_in_every_mode(rig, "") {
        let node = rig.handle();
        assert!(node.is_open());
        let room = node.add_contact("ann", "bob").unwrap().channel;
        let limited = channel("talk#ann,bob");
        for room in [&room, &limited] {
            for has_token in [false, true] {
                let right = |user| node.check_subscribe(stranger(user), room, has_token).map(drop);
                assert_eq!(right("ann"), Ok(()), "{room}");
                assert_eq!(right("bob"), Ok(()), "{room}");
                assert_eq!(right("eve"), Err(SubscribeError::Forbidden), "{room}");
                assert_eq!(right(""), Err(SubscribeError::Forbidden), "{room}");
            }
            let publish = |caller| node.check_publish(caller, draft(room.as_str(), "1")).map(drop);
            assert_eq!(publish(stranger("eve")), Err(PublishError::Forbidden), "{room}");
            assert_eq!(publish(stranger("ann")), Ok(()), "{room}");
            assert_eq!(publish(Caller::Operator), Ok(()), "{room}");
            let presence = node.presence(stranger("eve"), room).map(drop).unwrap_err();
            assert_eq!(presence.code(), ErrorCode::PermissionDenied, "{room}");
        }
    }
}

on_both_databases! {
    private_names_and_namespaces_need_a_token(rig, &format!("{SECURED}[namespace.hall]\ntoken_required = true\n")) {
        let node = rig.handle();
        for name in ["$den", "hall:a"] {
            let right = |has_token| node.check_subscribe(stranger("ann"), &channel(name), has_token).map(drop);
            assert_eq!(right(false), Err(SubscribeError::Forbidden), "{name}");
            assert_eq!(right(true), Ok(()), "{name}");
        }
    }
}

/// Settings with which everybody may do everything that needs no token.
fn tokens_only() -> String {
    let all = "subscribe = 'everyone'\npublish = 'everyone'\nread_history = 'everyone'\nread_presence = 'everyone'\n";
    format!(
        "{SECURED}[default_namespace]\n{all}[namespace.hall]\ntoken_required = true\n{all}[namespace.lawn]\n{all}"
    )
}

on_both_databases! {
    what_needs_a_token_needs_it_for_everything(rig, &tokens_only()) {
        let node = rig.handle();
        for (name, is_guarded) in [("$den", true), ("$lawn:a", true), ("hall:a", true), ("lawn:a", false)] {
            let room = channel(name);
            rig.publish(name, 1);
            let outcomes = |caller| {
                [
                    node.check_publish(caller, draft(name, "1")).map(drop).map_err(|e| e.code()),
                    node.presence(caller, &room).map(drop).map_err(|e| e.code()),
                    node.history(caller, &history(&room)).map(drop).map_err(|e| e.code()),
                    node.set_read(caller, &room, 1).map(drop).map_err(|e| e.code()),
                ]
            };
            let expected = if is_guarded { Err(ErrorCode::PermissionDenied) } else { Ok(()) };
            assert_eq!(outcomes(stranger("eve")), [expected; 4], "{name}");
            assert_eq!(outcomes(subscriber("ann")), [Ok(()); 4], "{name}");
        }
        let unread = |client| {
            let rooms = node.unread(client, &PageParams::default()).unwrap().entries.into_iter();
            rooms.map(|room| room.channel.to_string()).collect::<std::collections::BTreeSet<_>>()
        };
        let ann = rig.client("ann");
        assert_eq!(unread(&ann), ["lawn:a".to_owned()].into());
        let right = node.check_subscribe(stranger("ann"), &channel("$den"), true).unwrap();
        rig.join(&ann, right, None).unwrap();
        assert_eq!(unread(&ann), ["$den".to_owned(), "lawn:a".to_owned()].into());
    }
}

on_both_databases! {
    an_unknown_namespace_is_an_unknown_channel(rig, "") {
        let (node, room) = (rig.handle(), channel("nowhere:a"));
        for caller in [Caller::Operator, subscriber("ann"), stranger("")] {
            let publish = node.check_publish(caller, draft("nowhere:a", "1")).map(drop).unwrap_err();
            assert_eq!(publish, PublishError::UnknownNamespace);
            let subscribe = node.check_subscribe(caller, &room, false).map(drop).unwrap_err();
            assert_eq!(subscribe, SubscribeError::UnknownNamespace);
            let codes = [
                publish.code(),
                subscribe.code(),
                AccessError::UnknownNamespace.code(),
                node.presence(caller, &room).map(drop).unwrap_err().code(),
                node.history(caller, &history(&room)).map(drop).unwrap_err().code(),
                node.set_read(caller, &room, 1).map(drop).unwrap_err().code(),
                node.create_room(&room, RoomKind::Public, &[]).unwrap_err().code(),
                node.set_strategy(&room, None).unwrap_err().code(),
            ];
            assert_eq!(codes, [ErrorCode::UnknownChannel; 8]);
        }
    }
}
