//! Commands that only ask: presence, presence_stats, history.

use super::{Failure, Session};
use crate::engine::Presence;
use crate::ids::Channel;
use crate::net::services::Services;
use crate::protocol::code::ErrorCode;
use crate::protocol::command::HistoryRequest;
use crate::protocol::reply::{self, HistoryResult, PresenceStatsResult, PublicationList};
use crate::publication::Retention;
use crate::store::{History, HistoryLimit, HistoryQuery};

impl Session {
    pub(super) fn presence(&mut self, id: u32, channel: &Channel) -> Result<(), Failure> {
        let presence = self.ask_presence(channel)?;
        if presence.too_large {
            return Err(ErrorCode::NotAvailable.into());
        }
        self.reply(|out| reply::presence(out, id, &presence.clients));
        Ok(())
    }

    pub(super) fn presence_stats(&mut self, id: u32, channel: &Channel) -> Result<(), Failure> {
        let presence = self.ask_presence(channel)?;
        self.reply(|out| reply::presence_stats(out, id, stats(&presence)));
        Ok(())
    }

    fn ask_presence(&self, channel: &Channel) -> Result<Presence, Failure> {
        let options = self.services.options(channel)?;
        if !options.presence {
            return Err(ErrorCode::NotAvailable.into());
        }
        self.services.check(channel, options.read_presence, self.asker(channel))?;
        Ok(self.services.engine.presence(channel))
    }

    pub(super) fn history(&mut self, id: u32, request: &HistoryRequest) -> Result<(), Failure> {
        let options = self.services.options(&request.channel)?;
        if options.persist {
            self.services.check(&request.channel, options.read_history, self.asker(&request.channel))?;
        }
        let history = self.services.read_history(request)?;
        let publications: PublicationList = history.publications.iter().collect();
        let epoch = self.services.engine.epoch().clone();
        let result = HistoryResult { publications: &publications, epoch: &epoch, offset: history.head };
        self.reply(|out| reply::history(out, id, &result));
        Ok(())
    }
}

/// The counts of a room, as clients are told them.
pub(in crate::net) fn stats(presence: &Presence) -> PresenceStatsResult {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    PresenceStatsResult { num_clients: count(presence.clients_count), num_users: count(presence.users_count) }
}

impl Services {
    /// Reads history for a client or the server API, which may both ask for the same things.
    pub(in crate::net) fn read_history(&self, request: &HistoryRequest) -> Result<History, ErrorCode> {
        let options = self.options(&request.channel)?;
        if !options.persist {
            return Err(ErrorCode::NotAvailable);
        }
        if let Some(since) = &request.since {
            if !since.epoch.is_empty() && *since.epoch != **self.engine.epoch() {
                return Err(ErrorCode::UnrecoverablePosition);
            }
            if request.reverse && since.offset == 0 {
                return Err(ErrorCode::BadRequest);
            }
        }
        let query = HistoryQuery {
            since: request.since.as_ref().map(|since| since.offset),
            limit: match request.limit {
                0 => HistoryLimit::None,
                limit => usize::try_from(limit).map_or(HistoryLimit::All, HistoryLimit::Count),
            },
            reverse: request.reverse,
        };
        let retention = Retention { size: options.history_size, ttl: options.history_ttl };
        self.store.history(&request.channel, query, retention).map_err(|_| ErrorCode::Internal)
    }
}
