//! Contacts, read positions and unread rooms, and the codes of what is refused.

use super::rig::{SECURED, channel, draft, stranger, subscriber};
use crate::node::{Caller, RequestError, Role, RoomKind};
use crate::protocol::api::page::PageParams;
use crate::protocol::code::ErrorCode;

const ALL: PageParams = PageParams { after: None, limit: 1000 };

fn code<T: std::fmt::Debug>(outcome: Result<T, RequestError>) -> ErrorCode {
    outcome.unwrap_err().code()
}

on_both_databases! {
    contacts_share_a_room_that_outlives_the_contact(rig, "") {
        let node = rig.handle();
        let room = node.add_contact("ann", "bob").unwrap().channel;
        assert_eq!(node.add_contact("bob", "ann").unwrap().channel, room);
        let listed: Vec<_> = node.contacts("ann", &ALL).unwrap().entries.into_iter().map(|one| one.channel).collect();
        assert_eq!(listed, std::slice::from_ref(&room));
        assert_eq!(node.publish(stranger("ann"), [draft(room.as_str(), "1")]), [Ok(1)]);
        node.remove_contact("ann", "bob").unwrap();
        assert!(node.contacts("ann", &ALL).unwrap().entries.is_empty());
        assert_eq!(node.room(&room, &ALL).unwrap().room.head, 1);
        assert_eq!(node.contacts("bob", &ALL).unwrap().entries.len(), 1, "only one list was changed");
    }
}

on_both_databases! {
    contacts_that_cannot_be_are_bad_requests(rig, "") {
        let node = rig.handle();
        let long = "x".repeat(1000);
        for (user, contact) in [("ann", "ann"), ("ann", ""), ("", "ann"), ("ann", "a\0b"), ("ann", &long)] {
            assert_eq!(code(node.add_contact(user, contact)), ErrorCode::BadRequest, "{user:?} {contact:?}");
        }
        assert!(node.contacts("ann", &ALL).unwrap().entries.is_empty());
    }
}

on_both_databases! {
    read_positions_go_forward_up_to_the_head(rig, "") {
        let node = rig.handle();
        rig.publish("lobby", 3);
        let read = |seq| {
            let result = node.set_read(subscriber("ann"), &channel("lobby"), seq).unwrap();
            (result.last_read, result.unread)
        };
        assert_eq!(read(2), (2, 1));
        assert_eq!(read(1), (2, 1));
        assert_eq!(read(9), (3, 0));
        let rooms = node.unread(&rig.client("ann"), &ALL).unwrap().entries;
        let rooms: Vec<_> = rooms.iter().map(|room| (room.channel.as_str(), room.head, room.last_read)).collect();
        assert_eq!(rooms, [("lobby", 3, 3)]);
        assert!(node.unread(&rig.client("bob"), &ALL).unwrap().entries.is_empty());
    }
}

on_both_databases! {
    only_a_named_user_who_may_read_has_a_position(rig, "") {
        let node = rig.handle();
        let (lobby, den) = (channel("lobby"), channel("den"));
        rig.publish("lobby", 1);
        node.create_room(&den, RoomKind::Group, &[("ann", Role::Member)]).unwrap();
        assert_eq!(code(node.set_read(Caller::Operator, &lobby, 1)), ErrorCode::PermissionDenied);
        assert_eq!(code(node.set_read(subscriber(""), &lobby, 1)), ErrorCode::PermissionDenied);
        assert_eq!(code(node.set_read(subscriber("eve"), &den, 1)), ErrorCode::PermissionDenied);
        assert!(node.set_read(subscriber("ann"), &den, 1).is_ok());
        assert_eq!(code(node.set_read(subscriber("ann"), &channel("none"), 1)), ErrorCode::UnknownChannel);
    }
}

on_both_databases! {
    read_positions_are_for_those_who_may_read_history(rig, SECURED) {
        let (node, lobby) = (rig.handle(), channel("lobby"));
        rig.publish("lobby", 1);
        assert_eq!(code(node.set_read(stranger("ann"), &lobby, 1)), ErrorCode::PermissionDenied);
        assert_eq!(node.set_read(subscriber("ann"), &lobby, 1).unwrap().last_read, 1);
    }
}
