//! Rules of history and presence, and what retention hides.

use super::rig::{channel, subscriber};
use crate::node::Caller;
use crate::protocol::code::ErrorCode;
use crate::protocol::command::HistoryRequest;

const SETTINGS: &str = "[namespace.live]\npersist = false\n\
     [namespace.short]\nhistory_size = 2\n\
     [namespace.quiet]\npresence = false\n\
     [namespace.crowd]\npresence_max_listeners = 1\n";

/// The parameters of the history command.
fn request(json: &str) -> HistoryRequest {
    serde_json::from_str(json).unwrap()
}

on_both_databases! {
    history_comes_in_the_order_and_number_asked_for(rig, SETTINGS) {
        rig.publish("lobby", 5);
        let read = |json: &str| {
            let history = rig.handle().history(Caller::Operator, &request(json)).unwrap();
            assert_eq!(history.head, 5, "{json}");
            history.publications.iter().map(|publication| publication.seq).collect::<Vec<_>>()
        };
        assert_eq!(read(r#"{"channel":"lobby","limit":-1}"#), [1, 2, 3, 4, 5]);
        assert_eq!(read(r#"{"channel":"lobby","limit":0}"#), [0; 0]);
        assert_eq!(read(r#"{"channel":"lobby","limit":2,"since":{"offset":2}}"#), [3, 4]);
        assert_eq!(read(r#"{"channel":"lobby","limit":2,"reverse":true}"#), [5, 4]);
        assert_eq!(read(r#"{"channel":"lobby","limit":9,"reverse":true,"since":{"offset":3}}"#), [2, 1]);
    }
}

on_both_databases! {
    positions_that_make_no_sense_are_refused(rig, SETTINGS) {
        let code = |json: &str| rig.handle().history(subscriber("ann"), &request(json)).unwrap_err().code();
        assert_eq!(code(r#"{"channel":"lobby","since":{"offset":0},"reverse":true}"#), ErrorCode::BadRequest);
        let other = r#"{"channel":"lobby","since":{"offset":1,"epoch":"another"}}"#;
        assert_eq!(code(other), ErrorCode::UnrecoverablePosition);
        assert_eq!(code(r#"{"channel":"live:a"}"#), ErrorCode::NotAvailable);
    }
}

on_both_databases! {
    retention_hides_at_once_what_it_no_longer_keeps(rig, SETTINGS) {
        rig.publish("short:a", 5);
        let all = request(r#"{"channel":"short:a","limit":-1}"#);
        let history = rig.handle().history(Caller::Operator, &all).unwrap();
        let seqs: Vec<_> = history.publications.iter().map(|publication| publication.seq).collect();
        assert_eq!((history.head, seqs), (5, vec![4, 5]));
        assert!(rig.node().subscribe(&channel("short:a"), Some(3)).is_ok());
        let lost = rig.node().subscribe(&channel("short:a"), Some(2)).unwrap_err();
        assert_eq!(lost.code(), ErrorCode::UnrecoverablePosition);
    }
}

on_both_databases! {
    presence_lists_a_room_up_to_its_limit(rig, SETTINGS) {
        let code = rig.handle().presence(Caller::Operator, &channel("quiet:a")).unwrap_err().code();
        assert_eq!(code, ErrorCode::NotAvailable);
        let (first, second) = (rig.client("ann"), rig.client("ann"));
        let presence = || rig.handle().presence(Caller::Operator, &channel("crowd:a")).unwrap();
        assert_eq!(presence().clients_count, 0);
        rig.subscribe(&first, "crowd:a", None).unwrap();
        assert_eq!(presence().clients[0].client, *first.id());
        rig.subscribe(&second, "crowd:a", None).unwrap();
        let counts = presence();
        assert!(counts.too_large && counts.clients.is_empty());
        assert_eq!((counts.clients_count, counts.users_count), (2, 1));
        rig.handle().disconnect(&first);
        assert_eq!(presence().clients[0].client, *second.id());
    }
}
