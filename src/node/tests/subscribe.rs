//! Rules of a subscribe: rooms that must exist, limits, and what a client that returns gets.

use super::rig::{SECURED, channel};
use crate::node::{Position, RoomKind};
use crate::protocol::code::ErrorCode;
use crate::protocol::message::Message;

const SETTINGS: &str = "[client]\nchannels_max = 2\n[namespace.made]\nauto_create = false\n";

fn position(after: u64, epoch: &str, reject_unrecovered: bool) -> Option<Position> {
    Some(Position { after, epoch: epoch.to_owned(), reject_unrecovered })
}

on_both_databases! {
    a_client_waits_for_a_room_to_exist_the_operator_does_not(rig, SETTINGS) {
        let ann = rig.client("ann");
        assert_eq!(rig.subscribe(&ann, "made:a", None).unwrap_err(), ErrorCode::UnknownChannel);
        assert!(!ann.is_subscribed(&channel("made:a")));
        assert!(rig.node().subscribe(&channel("made:a"), None).is_ok());
        rig.handle().create_room(&channel("made:a"), RoomKind::Public, &[]).unwrap();
        assert_eq!(rig.subscribe(&ann, "made:a", None).unwrap().offset, 0);
        assert!(ann.is_subscribed(&channel("made:a")));
    }
}

on_both_databases! {
    a_connection_has_at_most_its_number_of_channels_each_once(rig, SETTINGS) {
        let ann = rig.client("ann");
        rig.subscribe(&ann, "a", None).unwrap();
        assert_eq!(rig.subscribe(&ann, "a", None).unwrap_err(), ErrorCode::AlreadySubscribed);
        rig.subscribe(&ann, "b", None).unwrap();
        assert_eq!(rig.subscribe(&ann, "c", None).unwrap_err(), ErrorCode::LimitExceeded);
        assert!(rig.handle().unsubscribe(&ann, &channel("a"), &Message::Ping));
        assert!(!rig.handle().unsubscribe(&ann, &channel("a"), &Message::Ping));
        rig.subscribe(&ann, "c", None).unwrap();
        rig.handle().disconnect(&ann);
        assert!(!ann.is_subscribed(&channel("b")) && !ann.is_subscribed(&channel("c")));
    }
}

on_both_databases! {
    a_client_that_returns_gets_what_it_missed_or_is_told(rig, "") {
        rig.publish("lobby", 5);
        let epoch = rig.node().epoch();
        let joined = rig.subscribe(&rig.client("ann"), "lobby", position(2, &epoch, false)).unwrap();
        let seqs: Vec<_> = joined.publications.iter().map(|publication| publication.seq).collect();
        assert_eq!((joined.recovered, joined.offset, seqs), (true, 2, vec![3, 4, 5]));
        for (after, epoch) in [(2, "another"), (6, &*epoch)] {
            let joined = rig.subscribe(&rig.client("ann"), "lobby", position(after, epoch, false)).unwrap();
            assert_eq!((joined.recovered, joined.offset, joined.publications.len()), (false, 5, 0));
            let refused = rig.subscribe(&rig.client("ann"), "lobby", position(after, epoch, true));
            assert_eq!(refused.unwrap_err(), ErrorCode::UnrecoverablePosition);
        }
    }
}

on_both_databases! {
    who_may_not_read_history_recovers_nothing(
        rig,
        &format!("{}[default_namespace]\nread_history = 'nobody'\n", SECURED)
    ) {
        rig.publish("lobby", 2);
        let joined = rig.subscribe(&rig.client("ann"), "lobby", position(1, "", false)).unwrap();
        assert_eq!((joined.recovered, joined.offset, joined.publications.len()), (false, 2, 0));
        let mut own = rig.node().subscribe(&channel("lobby"), Some(1)).unwrap();
        assert_eq!(own.recv().unwrap().seq, 2, "the operator reads everything");
    }
}
