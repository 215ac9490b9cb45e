//! Where the rows of a database come from: its own epoch, and for PostgreSQL the cluster and its timeline.
//!
//! A copy that takes over for the original, or an older state that is put back, differs in one of them, or
//! lacks what was committed to the original; `lineage` draws the conclusions.

use std::fmt;

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Bool, Nullable, Text};

use crate::store::connection::Connection;
use crate::store::models::meta;

/// Where the rows of a database come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    /// The epoch in table `meta`.
    pub(super) meta: String,
    /// `None` on SQLite, and where our role may not ask.
    pub(super) server: Option<Server>,
}

/// The part of an origin that only PostgreSQL has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Server {
    /// Identifier of the cluster, made by `initdb`; its copies have the same.
    pub(super) system: i64,
    /// Grows each time a copy is promoted or restored to a point in time.
    pub(super) timeline: u32,
}

/// The reason for which a connection has no origin.
#[derive(Debug)]
pub(super) enum NoOrigin {
    /// A query failed.
    Failed(diesel::result::Error),
    /// The server follows another one: it takes no writes, and what it shows may be old.
    Standby,
}

impl fmt::Display for NoOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => error.fmt(f),
            Self::Standby => f.write_str("the server is a standby, which takes no writes"),
        }
    }
}

impl From<diesel::result::Error> for NoOrigin {
    fn from(error: diesel::result::Error) -> Self {
        Self::Failed(error)
    }
}

impl Origin {
    /// Asks a new connection, outside of a transaction.
    pub(super) fn of(connection: &mut Connection) -> Result<Self, NoOrigin> {
        let server = match connection {
            Connection::Sqlite(_) => None,
            #[cfg(feature = "postgres")]
            Connection::Postgres(postgres) => Server::of(postgres)?,
        };
        Ok(Self { meta: meta::epoch_if_any(connection)?.unwrap_or_default(), server })
    }

    /// This origin, with the server of an `earlier` one when a connection was not told.
    pub(super) fn or_server_of(self, earlier: &Self) -> Self {
        Self { server: self.server.or(earlier.server), ..self }
    }

    /// The name that clients know the history by: letters. With `any_timeline` a promoted copy has the name of
    /// its original.
    pub(super) fn epoch(&self, any_timeline: bool) -> String {
        let mut epoch = self.meta.clone();
        if let Some(server) = self.server {
            let timeline = if any_timeline { 0 } else { server.timeline };
            push_letters(&mut epoch, mixed(server.system as u64 ^ mixed(u64::from(timeline))));
        }
        epoch
    }
}

impl Server {
    #[cfg(feature = "postgres")]
    fn of(connection: &mut PgConnection) -> Result<Option<Self>, NoOrigin> {
        let rights: Rights = sql_query(RIGHTS).get_result(connection)?;
        if rights.is_standby {
            return Err(NoOrigin::Standby);
        }
        if !rights.may_ask {
            return Ok(None);
        }
        let told: Told = sql_query(TOLD).get_result(connection)?;
        let timeline = told.timeline.and_then(|hex| u32::from_str_radix(&hex, 16).ok());
        Ok(timeline.map(|timeline| Self { system: told.system, timeline }))
    }
}

/// Every role may ask these functions unless somebody took that right away, or the server is no PostgreSQL.
const RIGHTS: &str = "SELECT pg_is_in_recovery() AS is_standby, bool_and(coalesce( \
     has_function_privilege(to_regprocedure(f), 'EXECUTE'), false)) AS may_ask \
     FROM unnest(ARRAY['pg_control_system()', 'pg_walfile_name(pg_lsn)', 'pg_current_wal_insert_lsn()']) AS f";

/// The name of the segment that is being written begins with the timeline. (`pg_control_checkpoint()` tells the
/// old one until the first checkpoint after a promotion.)
const TOLD: &str = "SELECT system_identifier AS system, \
     substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) AS timeline FROM pg_control_system()";

#[derive(QueryableByName)]
struct Rights {
    #[diesel(sql_type = Bool)]
    is_standby: bool,
    #[diesel(sql_type = Bool)]
    may_ask: bool,
}

#[derive(QueryableByName)]
struct Told {
    #[diesel(sql_type = BigInt)]
    system: i64,
    #[diesel(sql_type = Nullable<Text>)]
    timeline: Option<String>,
}

/// Spreads a number over 64 bits, the same in every version.
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn push_letters(text: &mut String, mut number: u64) {
    for _ in 0..8 {
        text.push(char::from(b'a' + (number % 26) as u8));
        number /= 26;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(meta: &str, system: i64, timeline: u32) -> Origin {
        Origin { meta: meta.to_owned(), server: Some(Server { system, timeline }) }
    }

    #[test]
    fn each_part_changes_the_epoch() {
        let epoch = origin("abcdefgh", 7, 1).epoch(false);
        assert!(epoch.starts_with("abcdefgh") && epoch.len() == 16);
        assert!(epoch.bytes().all(|byte| byte.is_ascii_lowercase()), "{epoch}");
        for other in [origin("hgfedcba", 7, 1), origin("abcdefgh", 8, 1), origin("abcdefgh", 7, 2)] {
            assert_ne!(other.epoch(false), epoch);
        }
        assert_eq!(origin("abcdefgh", 7, 1).epoch(true), origin("abcdefgh", 7, 2).epoch(true));
        assert_ne!(origin("abcdefgh", 7, 1).epoch(true), origin("abcdefgh", 8, 1).epoch(true));
    }

    #[test]
    fn a_connection_that_is_not_told_changes_nothing() {
        let earlier = origin("abcdefgh", 7, 1);
        let untold = Origin { server: None, ..earlier.clone() };
        assert_eq!(untold.or_server_of(&earlier), earlier);
    }
}
