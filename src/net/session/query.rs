//! Commands that only ask: presence, presence_stats, history.

use super::Session;
use super::outcome::CommandError;
use crate::ids::Channel;
use crate::limits::MESSAGE_BYTES_MAX;
use crate::net::queries::Kind;
use crate::node::{Presence, page_of};
use crate::protocol::api::decode_rpc;
use crate::protocol::api::page::PageParams;
use crate::protocol::api::params::ChannelPageParams;
use crate::protocol::code::ErrorCode;
use crate::protocol::command::HistoryRequest;
use crate::protocol::reply::{HistoryResult, PresencePage, PresenceStatsResult, Reply, client_bytes};
use crate::publication::Content;

impl Session {
    pub(super) fn presence(&mut self, id: u32, channel: &Channel) -> Result<(), CommandError> {
        self.count_request()?;
        let presence = self.ask_presence(channel)?;
        if presence.too_large {
            return Err(ErrorCode::NotAvailable.into());
        }
        let bytes: usize = presence.clients.iter().map(|client| client_bytes(client) + 1).sum();
        if bytes > MESSAGE_BYTES_MAX {
            return Err(ErrorCode::NotAvailable.into());
        }
        self.reply(id, Reply::Presence(&presence.clients));
        Ok(())
    }

    /// rpc `presence.list`: the same, page by page.
    pub(super) fn list_presence(&mut self, id: u32, data: Option<&Content>) -> Result<(), CommandError> {
        let ChannelPageParams { channel, after, limit } = decode_rpc(data)?;
        self.count_request()?;
        let presence = self.ask_presence(&channel)?;
        if presence.too_large {
            return Err(ErrorCode::NotAvailable.into());
        }
        let page = page_of(presence, &PageParams { after, limit });
        self.reply(id, Reply::Rpc(&PresencePage(&page)));
        Ok(())
    }

    pub(super) fn presence_stats(&mut self, id: u32, channel: &Channel) -> Result<(), CommandError> {
        self.count_request()?;
        let presence = self.ask_presence(channel)?;
        self.reply(id, Reply::PresenceStats(stats(&presence)));
        Ok(())
    }

    fn ask_presence(&mut self, channel: &Channel) -> Result<Presence, CommandError> {
        let _slot = self.slot_if(self.node.presence_asks(self.caller(channel), channel))?;
        Ok(self.node.presence(self.caller(channel), channel)?)
    }

    pub(super) fn history(&mut self, id: u32, request: &HistoryRequest) -> Result<(), CommandError> {
        self.count_request()?;
        self.node.check_format(self.client()?, &request.channel)?;
        let slot = self.slot(Kind::Read)?;
        let history = self.node.history(self.caller(&request.channel), request)?;
        drop(slot);
        let (publications, epoch) = (&*history.publications, &*history.epoch);
        self.reply(id, Reply::History(&HistoryResult { publications, epoch, offset: history.head }));
        Ok(())
    }
}

/// The counts of a room, as clients are told them.
pub(in crate::net) fn stats(presence: &Presence) -> PresenceStatsResult {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    PresenceStatsResult { num_clients: count(presence.clients_count), num_users: count(presence.users_count) }
}
