//! The rows of a commit, as the floors of storing insert them.
//!
//! The columns are those of the migrations; the floors know the table by their own definition and
//! share no code with the server's commits.

use std::sync::Arc;

use diesel::prelude::*;

use super::common::{PAYLOAD_BYTES, payload, publisher};
use super::measure::Case;
use roomcast::ClientInfo;

/// Rows of one transaction.
pub(crate) const BATCHES: &[usize] = &[1, 64, 256, 1024];

/// Rooms the rows are spread over.
pub(crate) const ROOMS: i64 = 100;

diesel::table! {
    messages (id) {
        id -> BigInt,
        room_id -> BigInt,
        seq -> BigInt,
        sender -> Nullable<Text>,
        client_id -> Nullable<Text>,
        conn_info -> Nullable<Text>,
        chan_info -> Nullable<Text>,
        data -> Text,
        tags -> Nullable<Text>,
        client_key -> Nullable<Text>,
        created_at -> BigInt,
    }
}

#[derive(Insertable, Debug, Clone, Copy)]
#[diesel(table_name = messages, treat_none_as_default_value = false)]
pub(crate) struct Row<'r> {
    pub(crate) room_id: i64,
    pub(crate) seq: i64,
    pub(crate) sender: Option<&'r str>,
    pub(crate) client_id: Option<&'r str>,
    pub(crate) conn_info: Option<&'r str>,
    pub(crate) chan_info: Option<&'r str>,
    pub(crate) data: &'r str,
    pub(crate) tags: Option<&'r str>,
    pub(crate) client_key: Option<&'r str>,
    pub(crate) created_at: i64,
}

/// Makes rows that no transaction had before.
pub(crate) struct Rows {
    data: Arc<str>,
    publisher: Arc<ClientInfo>,
    rooms: i64,
    made: i64,
}

impl Rows {
    /// Rows that are spread over so many rooms.
    pub(crate) fn of(rooms: i64) -> Self {
        Self { data: payload(PAYLOAD_BYTES), publisher: publisher(), rooms, made: 0 }
    }

    pub(crate) fn next(&mut self, count: usize) -> Vec<Row<'_>> {
        let (first, rooms) = (self.made, self.rooms);
        self.made += count as i64;
        (first..self.made)
            .map(|number| Row {
                room_id: 1 + number % rooms,
                seq: 1 + number / rooms,
                sender: Some(&self.publisher.user),
                client_id: Some(&self.publisher.client),
                conn_info: None,
                chan_info: None,
                data: &self.data,
                tags: None,
                client_key: None,
                created_at: 1_790_000_000_000 + number,
            })
            .collect()
    }
}

/// The cases of one way to insert.
pub(crate) fn cases(floor: &'static str, form: &'static str) -> impl Iterator<Item = Case> {
    BATCHES.iter().map(move |batch| Case {
        floor,
        form: Some(form),
        batch: Some(*batch),
        bytes: PAYLOAD_BYTES,
        units: *batch as u64,
        ..Case::default()
    })
}
