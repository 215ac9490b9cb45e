//! Rooms by hand: created once, in namespaces that have them, and what the operator is told.

use super::rig::{channel, subscriber};
use crate::config::Delivery;
use crate::node::{RequestError, Role, RoomKind, RoomQuery, StoreError};
use crate::protocol::api::page::PageParams;
use crate::protocol::code::ErrorCode;

const SETTINGS: &str = "[namespace.live]\npersist = false\n";

on_both_databases! {
    a_room_is_created_once(rig, SETTINGS) {
        let (node, room) = (rig.handle(), channel("den"));
        assert_eq!(node.room(&room, &PageParams::default()).unwrap_err(), RequestError::Store(StoreError::UnknownRoom));
        assert_eq!(node.room(&room, &PageParams::default()).unwrap_err().code(), ErrorCode::UnknownChannel);
        node.create_room(&room, RoomKind::Group, &[("ann", Role::Member)]).unwrap();
        let again = node.create_room(&room, RoomKind::Public, &[]).unwrap_err();
        assert_eq!((again.code(), again.code().number()), (ErrorCode::Conflict, 113));
        let description = node.room(&room, &PageParams::default()).unwrap();
        assert_eq!(description.room.kind, RoomKind::Group);
        assert_eq!(description.members.entries.iter().map(|member| &*member.user).collect::<Vec<_>>(), ["ann"]);
        assert_eq!(description.listeners_count, 0);
    }
}

on_both_databases! {
    rooms_that_come_by_themselves_are_not_made_by_hand(rig, SETTINGS) {
        let create = |name| rig.handle().create_room(&channel(name), RoomKind::Group, &[]).unwrap_err();
        assert_eq!(create("live:a"), RequestError::NotAvailable);
        assert_eq!(create("direct:a"), RequestError::NotAvailable);
        let bad = rig.handle().create_room(&channel("den"), RoomKind::Group, &[("", Role::Member)]);
        assert_eq!(bad.unwrap_err().code(), ErrorCode::BadRequest);
    }
}

on_both_databases! {
    the_operator_sees_and_ends_what_is_going_on(rig, SETTINGS) {
        let node = rig.handle();
        let (ann, bob) = (rig.client("ann"), rig.client("bob"));
        rig.subscribe(&ann, "lobby", None).unwrap();
        rig.subscribe(&bob, "lobby", None).unwrap();
        let status = node.status();
        assert_eq!((status.users, status.rooms, status.subscriptions), (2, 1, 2));
        node.set_strategy(&channel("lobby"), Delivery::named("worker")).unwrap();
        let rooms = node.active_rooms(&RoomQuery::all());
        assert_eq!(rooms.iter().map(|room| (room.channel.as_str(), room.listeners)).collect::<Vec<_>>(), [(
            "lobby", 2
        )]);
        assert_eq!(node.lagging(10).0, 0);

        let whom = crate::node::ClientSelector { user: "ann", client: Some(bob.id()) };
        node.unsubscribe_user(whom, &channel("lobby"));
        assert!(ann.is_subscribed(&channel("lobby")), "the client is another user's");
        let whom = crate::node::ClientSelector { user: "ann", client: None };
        node.unsubscribe_user(whom, &channel("lobby"));
        assert!(!ann.is_subscribed(&channel("lobby")) && bob.is_subscribed(&channel("lobby")));
        assert_eq!(node.presence(subscriber("bob"), &channel("lobby")).unwrap().clients_count, 1);
    }
}
