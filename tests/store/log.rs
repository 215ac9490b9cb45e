//! The log: numbers, keys, history, pages, restart.

use std::sync::Arc;

use roomcast::internals::{
    Appended, Health, HistoryLimit, HistoryQuery, NewMessage, PAGE_BYTES_MAX, PAGE_PUBLICATIONS_MAX, RoomKind,
};
use roomcast::{AppendError, ClientInfo};

use crate::Check;
use crate::vocabulary::*;

pub(crate) const CHECKS: &[Check] = &[
    ("messages are numbered from 1", numbered_from_1),
    ("everything of a message is kept", everything_is_kept),
    ("an unknown room is not created unasked", unknown_room),
    ("a bad row fails alone", bad_row_fails_alone),
    ("a row the database refuses fails alone", refused_row_fails_alone),
    ("a key stores once, also across a restart", key_stores_once),
    ("a key of another message is refused", key_of_another_message),
    ("history as the protocol says", history_semantics),
    ("a page is bounded in rows and bytes", page_bounds),
    ("epoch and heads survive a restart", restart),
];

fn numbered_from_1(backend: &Backend) {
    let store = backend.open();
    assert_eq!(store.head(&channel("a")), Ok(0));
    assert_eq!(store.room(&channel("a")), Ok(None));
    assert_eq!(append(&store, message("a", "1")), Ok(Appended::New(1)));
    let results = store.append(vec![message("a", "2"), message("b", "1"), message("a", "3")], &discard());
    assert_eq!(results, [Ok(Appended::New(2)), Ok(Appended::New(1)), Ok(Appended::New(3))]);
    let room = store.room(&channel("a")).unwrap().unwrap();
    assert_eq!((room.kind, room.head), (RoomKind::Public, 3));
    assert!(room.last_active_ms >= room.created_ms && room.created_ms > 0);
    assert_eq!(store.append(Vec::new(), &discard()), []);
    assert_eq!(store.health(), Health::Up);
}

fn everything_is_kept(backend: &Backend) {
    let store = backend.open();
    let info = ClientInfo {
        user: "ann".into(),
        client: "c-1".into(),
        conn_info: Some(r#"{"name":"Ann"}"#.into()),
        chan_info: Some("[1]".into()),
    };
    let sent = NewMessage {
        info: Some(Arc::new(info)),
        tags: Some(r#"{"k":"v"}"#.into()),
        ..message("a", r#"{"text":"å ☃ 𝄞"}"#)
    };
    append(&store, sent.clone()).unwrap();
    let anonymous = message_of("", "a", "2");
    append(&store, anonymous.clone()).unwrap();
    append(&store, message("a", "3")).unwrap();
    let page = store.page(&channel("a"), 0, 9, KEEP_ALL).unwrap();
    assert_eq!(seqs(&page), [1, 2, 3]);
    assert_eq!((&page[0].data, &page[0].tags, &page[0].info), (&sent.data, &sent.tags, &sent.info));
    assert_eq!(page[1].info, anonymous.info);
    assert_eq!(page[2].info, None);
    assert!(page[0].created_at_ms > 0 && page[0].created_at_ms <= page[2].created_at_ms);
    // Users are those with an id.
    assert_eq!(backend.number("SELECT count(*) FROM users"), 1);
}

fn unknown_room(backend: &Backend) {
    let store = backend.open();
    let closed = |room: &str| NewMessage { auto_create: false, ..message(room, "1") };
    assert_eq!(append(&store, closed("a")), Err(AppendError::UnknownRoom));
    let results = store.append(
        vec![closed("b"), message("c", "1"), keyed(closed("b"), "k"), keyed(closed("b"), "k")],
        &discard(),
    );
    let unknown = Err(AppendError::UnknownRoom);
    assert_eq!(results, [unknown.clone(), Ok(Appended::New(1)), unknown.clone(), unknown]);
    assert_eq!(store.head(&channel("b")), Ok(0));
    store.create_room(&channel("a"), RoomKind::Group, &[]).unwrap();
    assert_eq!(append(&store, closed("a")), Ok(Appended::New(1)));
}

fn bad_row_fails_alone(backend: &Backend) {
    let store = backend.open();
    let long_key = keyed(message("a", "4"), &"k".repeat(129));
    let results = store.append(
        vec![
            message("a", "1"),
            message("a", "2\0"),
            message("a", "3"),
            long_key,
            message_of(&"u".repeat(256), "a", "5"),
            message("a", "6"),
        ],
        &discard(),
    );
    let numbers: Vec<_> = results.iter().map(|result| result.as_ref().ok().copied()).collect();
    let new = |seq| Some(Appended::New(seq));
    assert_eq!(numbers, [new(1), None, new(2), None, None, new(3)]);
    assert!(
        results
            .iter()
            .flat_map(|result| result.as_ref().err())
            .all(|error| matches!(error, AppendError::Rejected(_)))
    );
    assert_eq!(history(&store, "a", all(), KEEP_ALL), [1, 2, 3]);
    assert_eq!(store.health(), Health::Up);
}

/// A rule that only the database knows, as an operator may have added it. SQLite adds none to a table that is there, so
/// a trigger breaks one of another.
fn refused_row_fails_alone(backend: &Backend) {
    let store = backend.open();
    fill(&store, "a", 1);
    match backend {
        Backend::Postgres(_) => {
            backend.execute("ALTER TABLE messages ADD CONSTRAINT no_bad CHECK (data <> 'bad')");
        }
        Backend::Sqlite(_) => backend.execute(
            "CREATE TRIGGER no_bad BEFORE INSERT ON messages WHEN new.data = 'bad' \
             BEGIN UPDATE rooms SET head_seq = -1; END",
        ),
    }
    let texts = ["2", "bad", "3", "4", "bad", "5", "6", "7", "8"];
    let results = store.append(texts.iter().map(|text| message("a", text)).collect(), &discard());
    for (text, result) in texts.iter().zip(&results) {
        match *text {
            "bad" => assert!(matches!(result, Err(AppendError::Rejected(_))), "{result:?}"),
            text => assert_eq!(*result, Ok(Appended::New(text.parse().unwrap()))),
        }
    }
    assert_eq!(history(&store, "a", all(), KEEP_ALL), (1..=8).collect::<Vec<_>>());
    assert_eq!(store.health(), Health::Up);
}

fn key_stores_once(backend: &Backend) {
    let store = backend.open();
    fill(&store, "a", 2);
    let first = keyed(message_of("ann", "a", "x"), "k1");
    assert_eq!(append(&store, first.clone()), Ok(Appended::New(3)));
    assert_eq!(append(&store, first.clone()), Ok(Appended::Duplicate(3)));
    // Within one batch, and beside others that use the same key.
    let results = store.append(
        vec![
            keyed(message_of("bob", "a", "x"), "k1"),
            first.clone(),
            keyed(message_of("ann", "b", "x"), "k1"),
            keyed(message("a", "x"), "k1"),
            keyed(message_of("bob", "a", "x"), "k1"),
            message("a", "last"),
            keyed(message("a", "x"), "k1"),
        ],
        &discard(),
    );
    let (new, duplicate) = (|seq| Ok(Appended::New(seq)), |seq| Ok(Appended::Duplicate(seq)));
    assert_eq!(results, [new(4), duplicate(3), new(1), new(5), duplicate(4), new(6), duplicate(5)]);
    drop(store);
    let store = backend.open();
    assert_eq!(append(&store, first), Ok(Appended::Duplicate(3)));
    assert_eq!(store.head(&channel("a")), Ok(6));
    assert_eq!(history(&store, "a", all(), KEEP_ALL), [1, 2, 3, 4, 5, 6]);
}

fn key_of_another_message(backend: &Backend) {
    let store = backend.open();
    let tagged = |tags: &str| NewMessage { tags: Some(tags.into()), ..keyed(message("a", "1"), "tagged") };
    let of = |user| keyed(message_of(user, "a", "1"), "k");
    let other = |message: NewMessage| NewMessage { data: "2".into(), ..message };
    let stored = [tagged("{}"), of("ann"), of(""), keyed(message("b", "1"), "k")];
    assert!(store.append(stored.to_vec(), &discard()).iter().all(Result::is_ok));
    let batch = vec![
        tagged("[]"),
        keyed(message("a", "1"), "tagged"),
        tagged("{}"),
        other(of("ann")),
        of("ann"),
        // The one is the server's, the other a stranger's.
        keyed(message("a", "1"), "k"),
        keyed(message_of("", "b", "1"), "k"),
        other(of("")),
        // Within one batch.
        keyed(message_of("bob", "a", "3"), "k"),
        keyed(message_of("bob", "a", "4"), "k"),
        keyed(message_of("bob", "a", "3"), "k"),
        keyed(message("c", "1"), "k"),
        keyed(message_of("", "c", "1"), "k"),
        message("a", "last"),
    ];
    let taken = Err(AppendError::KeyTaken);
    let (new, duplicate) = (|seq| Ok(Appended::New(seq)), |seq| Ok(Appended::Duplicate(seq)));
    let expected = [
        taken.clone(),
        taken.clone(),
        duplicate(1),
        taken.clone(),
        duplicate(2),
        taken.clone(),
        taken.clone(),
        taken.clone(),
        new(4),
        taken.clone(),
        duplicate(4),
        new(1),
        taken,
        new(5),
    ];
    assert_eq!(store.append(batch, &discard()), expected);
    assert_eq!(history(&store, "a", all(), KEEP_ALL), [1, 2, 3, 4, 5]);
    assert_eq!(store.health(), Health::Up);
}

fn history_semantics(backend: &Backend) {
    let store = backend.open();
    fill(&store, "a", 5);
    let ask = |since, limit, reverse| {
        let limit = match limit {
            0 => HistoryLimit::None,
            -1 => HistoryLimit::All,
            count => HistoryLimit::Count(count as usize),
        };
        history(&store, "a", HistoryQuery { since, limit, reverse }, KEEP_ALL)
    };
    assert_eq!(ask(None, 0, false), [0; 0]);
    assert_eq!(ask(None, -1, false), [1, 2, 3, 4, 5]);
    assert_eq!(ask(None, 2, false), [1, 2]);
    assert_eq!(ask(None, 2, true), [5, 4]);
    assert_eq!(ask(Some(2), -1, false), [3, 4, 5]);
    assert_eq!(ask(Some(2), 1, false), [3]);
    assert_eq!(ask(Some(4), -1, true), [3, 2, 1]);
    assert_eq!(ask(Some(4), 2, true), [3, 2]);
    assert_eq!(ask(Some(5), -1, false), [0; 0]);
    assert_eq!(ask(Some(u64::MAX), -1, false), [0; 0]);
    assert_eq!(ask(Some(u64::MAX), 1, true), [5]);
    assert_eq!(ask(Some(1), -1, true), [0; 0]);
    assert_eq!(ask(Some(0), -1, false), [1, 2, 3, 4, 5]);
    let answer =
        store.history(&channel("a"), HistoryQuery { limit: HistoryLimit::None, ..all() }, KEEP_ALL).unwrap();
    assert_eq!((answer.publications.len(), answer.head), (0, 5));
    let nothing = store.history(&channel("none"), all(), KEEP_ALL).unwrap();
    assert_eq!((nothing.publications.len(), nothing.head), (0, 0));
}

fn page_bounds(backend: &Backend) {
    let store = backend.open();
    fill(&store, "many", PAGE_PUBLICATIONS_MAX + 10);
    let page = |room: &str, after, until| seqs(&store.page(&channel(room), after, until, KEEP_ALL).unwrap());
    assert_eq!(page("many", 0, u64::MAX), (1..=PAGE_PUBLICATIONS_MAX as u64).collect::<Vec<_>>());
    assert_eq!(page("many", 300, u64::MAX), (301..=310).collect::<Vec<_>>());
    assert_eq!(page("many", 5, 8), [6, 7, 8]);
    assert_eq!(page("many", 8, 5), [0; 0]);
    assert_eq!(history(&store, "many", all(), KEEP_ALL).len(), PAGE_PUBLICATIONS_MAX);
    // A page counts what surrounds the payloads in a reply, too.
    let third = "x".repeat(PAGE_BYTES_MAX / 3 - 500);
    let whole = "y".repeat(PAGE_BYTES_MAX + 1);
    for data in [&third, &third, &third, &third, &whole, &third] {
        append(&store, message("large", data)).unwrap();
    }
    assert_eq!(page("large", 0, 9), [1, 2, 3]);
    assert_eq!(page("large", 3, 9), [4]);
    assert_eq!(page("large", 4, 9), [5]);
    assert_eq!(page("large", 5, 9), [6]);
    // The connection is fine after a page that was cut short.
    assert_eq!(page("many", 0, 1), [1]);
}

fn restart(backend: &Backend) {
    let store = backend.open();
    let epoch = store.epoch();
    assert!(epoch.len() >= 8 && epoch.bytes().all(|byte| byte.is_ascii_lowercase()));
    fill(&store, "a", 3);
    drop(store);
    let store = backend.open();
    assert_eq!(store.epoch(), epoch);
    assert_eq!(store.head(&channel("a")), Ok(3));
    assert_eq!(append(&store, message("a", "4")), Ok(Appended::New(4)));
}
