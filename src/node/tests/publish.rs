//! Rules of a publish: size, storage, rooms that must exist, keys, and answers in order.

use super::rig::{channel, draft, subscriber};
use crate::node::{AppendError, Caller, Draft, PublishError, RoomKind};
use crate::protocol::code::ErrorCode;

const SETTINGS: &str = "[namespace.small]\nmessage_bytes_max = 10\n\
     [namespace.live]\npersist = false\n\
     [namespace.made]\nauto_create = false\n";

on_both_databases! {
    a_payload_has_at_most_the_bytes_of_its_namespace(rig, SETTINGS) {
        let check = |data: &str| rig.handle().check_publish(Caller::Operator, draft("small:a", data)).map(drop);
        assert_eq!(check("1234567890"), Ok(()));
        assert_eq!(check("12345678901"), Err(PublishError::TooLarge));
        assert_eq!(PublishError::TooLarge.code(), ErrorCode::LimitExceeded);
    }
}

on_both_databases! {
    outcomes_are_in_the_order_of_the_messages(rig, SETTINGS) {
        let drafts = [
            draft("lobby", "1"),
            draft("small:a", "12345678901"),
            draft("live:a", "2"),
            draft("nowhere:a", "3"),
            draft("made:a", "4"),
            draft("lobby", "5"),
        ];
        let outcomes = rig.handle().publish(Caller::Operator, drafts);
        let expected = [
            Ok(1),
            Err(PublishError::TooLarge),
            Ok(0),
            Err(PublishError::UnknownNamespace),
            Err(PublishError::Store(AppendError::UnknownRoom)),
            Ok(2),
        ];
        assert_eq!(outcomes, expected);
        assert_eq!(rig.handle().publish(Caller::Operator, []), []);
    }
}

on_both_databases! {
    a_room_that_has_to_be_created_first_is_unknown_before(rig, SETTINGS) {
        let publish = || rig.handle().publish(Caller::Operator, [draft("made:a", "1")]).pop().unwrap();
        assert_eq!(publish().unwrap_err().code(), ErrorCode::UnknownChannel);
        rig.handle().create_room(&channel("made:a"), RoomKind::Public, &[]).unwrap();
        assert_eq!(publish(), Ok(1));
    }
}

on_both_databases! {
    only_a_namespace_that_stores_nothing_skips_the_history(rig, SETTINGS) {
        let publish = |name| {
            let draft = Draft { skip_history: true, ..draft(name, "1") };
            rig.handle().publish(Caller::Operator, [draft]).pop().unwrap()
        };
        assert_eq!(publish("live:a"), Ok(0));
        assert_eq!(publish("lobby"), Err(PublishError::AlwaysStored));
        assert_eq!(PublishError::AlwaysStored.code(), ErrorCode::NotAvailable);
    }
}

on_both_databases! {
    a_key_counts_for_its_sender_and_room(rig, SETTINGS) {
        let (ann, bob) = (rig.client("ann"), rig.client("bob"));
        let publish = |client: &crate::node::Client, name: &str| {
            let (_, info) = client.in_channel(&channel(name));
            let draft = Draft { info: Some(info), key: Some("k".into()), ..draft(name, "1") };
            rig.handle().publish(subscriber(client.user()), [draft]).pop().unwrap().unwrap()
        };
        assert_eq!([publish(&ann, "lobby"), publish(&ann, "lobby")], [1, 1]);
        assert_eq!([publish(&bob, "lobby"), publish(&bob, "lobby")], [2, 2]);
        assert_eq!(publish(&ann, "hall"), 1);
    }
}

on_both_databases! {
    keys_of_api_users_and_strangers_never_meet(rig, SETTINGS) {
        let publish = |client: Option<&crate::node::Client>, data: &str| {
            let info = client.map(|client| client.in_channel(&channel("lobby")).1);
            let caller = client.map_or(Caller::Operator, |client| subscriber(client.user()));
            let draft = Draft { info, key: Some("order-7".into()), ..draft("lobby", data) };
            rig.handle().publish(caller, [draft]).pop().unwrap()
        };
        let (stranger, other) = (rig.client(""), rig.client(""));
        let clients = [Some(&stranger), None, Some(&other), Some(&rig.client("ann")), Some(&rig.client("bob"))];
        for (client, seq) in clients.iter().zip(1..) {
            assert_eq!(publish(*client, "1"), Ok(seq));
        }
        let taken = PublishError::Store(AppendError::KeyTaken);
        assert_eq!((taken.code(), taken.code().number()), (ErrorCode::Conflict, 113));
        for (client, seq) in clients.iter().zip(1..) {
            assert_eq!(publish(*client, "1"), Ok(seq), "the same again");
            assert_eq!(publish(*client, "2"), Err(taken.clone()), "something else");
        }
        assert_eq!(rig.node().publish(&channel("lobby"), "7"), Ok(6));
    }
}

on_both_databases! {
    a_key_is_as_long_for_everybody(rig, SETTINGS) {
        for user in ["ann", ""] {
            let client = rig.client(user);
            let publish = |length| {
                let (caller, info) = client.in_channel(&channel("lobby"));
                let key = Some("k".repeat(length).into());
                let draft = Draft { info: Some(info), key, ..draft("lobby", "1") };
                rig.handle().publish(caller, [draft]).pop().unwrap().map(drop)
            };
            assert_eq!(publish(128), Ok(()), "{user:?}");
            assert_eq!(publish(129).unwrap_err().code(), ErrorCode::BadRequest, "{user:?}");
        }
    }
}
