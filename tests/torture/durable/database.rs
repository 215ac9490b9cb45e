//! The database as somebody else sees it, and what must be true of it.

use std::collections::HashMap;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};

use super::ROOMS;
use super::ear::Ear;

/// The tables, read by plain SQL over a connection of the test's own.
pub(super) struct Database {
    connection: Link,
    url: String,
    /// Number of each text, by room and text.
    stored: HashMap<(String, String), u64>,
    /// Newest number taken in, by room.
    newest: HashMap<String, u64>,
}

enum Link {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = Text)]
    data: String,
}

#[derive(QueryableByName)]
struct Head {
    #[diesel(sql_type = BigInt)]
    head_seq: i64,
}

impl Link {
    fn open(url: &str) -> Self {
        match url.strip_prefix("sqlite:") {
            Some(path) => Self::Sqlite(SqliteConnection::establish(path).unwrap()),
            None => Self::Postgres(PgConnection::establish(url).unwrap()),
        }
    }

    fn load<T>(&mut self, sql: &str) -> Vec<T>
    where
        T: QueryableByName<diesel::sqlite::Sqlite> + QueryableByName<diesel::pg::Pg> + 'static,
    {
        match self {
            Self::Sqlite(connection) => diesel::sql_query(sql).load(connection).unwrap(),
            Self::Postgres(connection) => diesel::sql_query(sql).load(connection).unwrap(),
        }
    }
}

impl Database {
    pub(super) fn open(url: &str) -> Self {
        let connection = Link::open(url);
        Self { connection, url: url.to_owned(), stored: HashMap::new(), newest: HashMap::new() }
    }

    pub(super) fn reconnect(&mut self) {
        self.connection = Link::open(&self.url);
    }

    /// Forgets what was read, so that the next look reads everything.
    pub(super) fn start_over(&mut self) {
        self.stored.clear();
        self.newest.clear();
    }

    pub(super) fn rows(&self) -> usize {
        self.stored.len()
    }

    pub(super) fn head(&mut self, room: &str) -> u64 {
        let heads: Vec<Head> =
            self.connection.load(&format!("SELECT head_seq FROM rooms WHERE name = '{room}'"));
        heads.first().map_or(0, |head| head.head_seq as u64)
    }

    /// Reads what is new: numbers go on without a hole up to the head, and no text is there twice.
    pub(super) fn take_in_news(&mut self) {
        for room in ROOMS {
            let newest = self.newest.get(room).copied().unwrap_or(0);
            let head = self.head(room);
            let rows: Vec<Row> = self.connection.load(&format!(
                "SELECT m.seq, m.data FROM messages m JOIN rooms r ON r.id = m.room_id \
                 WHERE r.name = '{room}' AND m.seq > {newest} AND m.seq <= {head} ORDER BY m.seq"
            ));
            let mut expected = newest;
            for row in rows {
                expected += 1;
                assert_eq!(row.seq as u64, expected, "a hole in {room}");
                let text: String = serde_json::from_str(&row.data).unwrap();
                let twice = self.stored.insert((room.to_owned(), text), expected);
                assert_eq!(twice, None, "{} is stored twice in {room}", row.data);
            }
            assert_eq!(expected, head, "the head of {room} is not its newest message");
            self.newest.insert(room.to_owned(), head);
        }
    }

    /// What was acknowledged is stored, and what was seen since the last time is stored under the same number.
    pub(super) fn compare(&self, acknowledged: &[(String, String, Option<u64>)], ears: &mut [Ear]) {
        for (room, text, seq) in acknowledged {
            let stored = self.stored.get(&(room.clone(), text.clone()));
            assert!(stored.is_some(), "{text:.40} was acknowledged in {room} and is lost");
            assert!(seq.is_none_or(|seq| stored == Some(&seq)), "{text:.40} has {stored:?}, not {seq:?}");
        }
        for ear in ears {
            for (place, text) in ear.heard.iter().enumerate().skip(ear.compared) {
                let stored = self.stored.get(&(ear.room.clone(), text.clone()));
                assert_eq!(stored, Some(&(place as u64 + 1)), "{text:.40} was seen in {}", ear.room);
            }
            ear.compared = ear.heard.len();
        }
    }
}
