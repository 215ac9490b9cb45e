//! Contacts, direct rooms, members, read positions.

use std::collections::BTreeSet;
use std::sync::Mutex;

use roomcast::internals::{Role, RoomKind, StoreError};

use crate::Check;
use crate::vocabulary::*;

pub(crate) const CHECKS: &[Check] = &[
    ("a contact makes one direct room, from either side", one_direct_room),
    ("adding at once from both sides makes one room", added_at_once),
    ("removing a contact keeps the room", removed),
    ("bad contacts are refused", bad_contacts),
    ("rooms are created with their members", created_rooms),
    ("read positions move forward only", read_positions),
];

fn one_direct_room(backend: &Backend) {
    let store = backend.open();
    let made = store.add_contact("ann", "bob").unwrap();
    assert!(made.created && made.channel.namespace() == "direct");
    for (user, contact) in [("ann", "bob"), ("bob", "ann")] {
        let again = store.add_contact(user, contact).unwrap();
        assert_eq!((again.channel, again.created), (made.channel.clone(), false));
        let contacts = store.contacts(user, "", 1000).unwrap();
        assert_eq!(contacts.len(), 1);
        assert_eq!((&*contacts[0].user, &contacts[0].channel), (contact, &made.channel));
        assert!(contacts[0].since_ms > 0);
        assert_eq!(store.role(&made.channel, user), Ok(Some(Role::Member)));
    }
    assert_eq!(store.room(&made.channel).unwrap().unwrap().kind, RoomKind::Direct);
    assert_eq!(store.is_member(&made.channel, "eve"), Ok(false));
    let other = store.add_contact("ann", "eve").unwrap();
    assert_ne!(other.channel, made.channel);
    let users: Vec<String> =
        store.contacts("ann", "", 1000).unwrap().into_iter().map(|contact| contact.user).collect();
    assert_eq!(users, ["bob", "eve"]);
}

fn added_at_once(backend: &Backend) {
    let store = backend.open();
    for round in 0..10 {
        let (ann, bob) = (format!("ann{round}"), format!("bob{round}"));
        let made: Mutex<Vec<_>> = Mutex::default();
        in_threads(8, |thread| {
            let room =
                if thread % 2 == 0 { store.add_contact(&ann, &bob) } else { store.add_contact(&bob, &ann) };
            made.lock().unwrap().push(room.unwrap());
        });
        let made = made.into_inner().unwrap();
        assert_eq!(made.iter().filter(|room| room.created).count(), 1);
        assert_eq!(made.iter().map(|room| &room.channel).collect::<BTreeSet<_>>().len(), 1);
    }
    assert_eq!(backend.number("SELECT count(*) FROM rooms"), 10);
    assert_eq!(backend.number("SELECT count(*) FROM members"), 20);
    assert_eq!(backend.number("SELECT count(*) FROM contacts"), 20);
}

fn removed(backend: &Backend) {
    let store = backend.open();
    let room = store.add_contact("ann", "bob").unwrap().channel;
    append(&store, message_of("ann", room.as_str(), "1")).unwrap();
    assert_eq!(store.remove_contact("bob", "ann"), Ok(true));
    assert_eq!(store.remove_contact("bob", "ann"), Ok(false));
    assert_eq!(store.contacts("bob", "", 1000), Ok(Vec::new()));
    assert_eq!(store.contacts("ann", "", 1000).unwrap().len(), 1);
    assert_eq!(store.head(&room), Ok(1));
    // It does not come back by the other's doing, but by one's own.
    store.add_contact("ann", "bob").unwrap();
    assert_eq!(store.contacts("bob", "", 1000), Ok(Vec::new()));
    let again = store.add_contact("bob", "ann").unwrap();
    assert_eq!((again.channel, again.created), (room, false));
    assert_eq!(store.contacts("bob", "", 1000).unwrap().len(), 1);
}

fn bad_contacts(backend: &Backend) {
    let store = backend.open();
    assert_eq!(store.add_contact("ann", "ann"), Err(StoreError::OwnContact));
    for bad in ["", "a\0b", &"u".repeat(256)] {
        assert_eq!(store.add_contact("ann", bad), Err(StoreError::BadUser));
        assert_eq!(store.add_contact(bad, "ann"), Err(StoreError::BadUser));
        assert_eq!(store.remove_contact("ann", bad), Ok(false));
        assert_eq!(store.contacts(bad, "", 1000), Ok(Vec::new()));
        assert_eq!(store.unread(bad, None, 1000), Ok(Vec::new()));
        assert_eq!(store.role(&channel("a"), bad), Ok(None));
    }
    assert_eq!(backend.number("SELECT count(*) FROM users"), 0);
}

fn created_rooms(backend: &Backend) {
    let store = backend.open();
    let team = channel("team");
    store.create_room(&team, RoomKind::Group, &[("ann", Role::Owner), ("bob", Role::Member)]).unwrap();
    assert_eq!(store.create_room(&team, RoomKind::Public, &[]), Err(StoreError::RoomExists));
    assert_eq!(store.create_room(&channel("direct:x"), RoomKind::Direct, &[]), Err(StoreError::DirectRoom));
    assert_eq!(
        store.create_room(&channel("x"), RoomKind::Group, &[("", Role::Member)]),
        Err(StoreError::BadUser)
    );
    let members: Vec<_> = store
        .members(&team, "", 1000)
        .unwrap()
        .into_iter()
        .map(|member| (member.user, member.role))
        .collect();
    assert_eq!(members, [("ann".to_owned(), Role::Owner), ("bob".to_owned(), Role::Member)]);
    assert_eq!(store.is_member(&team, "ann"), Ok(true));
    assert_eq!(store.is_member(&team, "eve"), Ok(false));
}

fn read_positions(backend: &Backend) {
    let store = backend.open();
    let direct = store.add_contact("ann", "bob").unwrap().channel;
    fill(&store, "public", 5);
    fill(&store, direct.as_str(), 3);
    let unread = |user: &str| -> Vec<_> {
        let rooms = store.unread(user, None, 1000).unwrap();
        rooms
            .into_iter()
            .map(|(room, _)| (room.channel.to_string(), room.head, room.last_read, room.count()))
            .collect()
    };
    assert_eq!(unread("ann"), [(direct.to_string(), 3, 0, 3)]);
    store.set_last_read(&direct, "ann", 2).unwrap();
    store.set_last_read(&direct, "ann", 1).unwrap();
    assert_eq!(unread("ann"), [(direct.to_string(), 3, 2, 1)]);
    store.set_last_read(&direct, "ann", u64::MAX).unwrap();
    assert_eq!(unread("ann"), [(direct.to_string(), 3, 3, 0)]);
    assert_eq!(unread("bob"), [(direct.to_string(), 3, 0, 3)]);
    assert_eq!(store.set_last_read(&direct, "eve", 1), Err(StoreError::NotMember));
    assert_eq!(store.set_last_read(&channel("none"), "eve", 1), Err(StoreError::UnknownRoom));
    // A reader of a public room has a position, but belongs to nothing.
    store.set_last_read(&channel("public"), "eve", 4).unwrap();
    store.set_last_read(&channel("public"), "eve", 4).unwrap();
    assert_eq!(unread("eve"), [("public".to_owned(), 5, 4, 1)]);
    assert_eq!(store.is_member(&channel("public"), "eve"), Ok(false));
    assert_eq!(store.members(&channel("public"), "", 1000), Ok(Vec::new()));
}
