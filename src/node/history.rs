//! Reading: the history of a room and its present listeners.

use std::sync::Arc;

use super::access::Caller;
use super::error::{AccessError, RequestError};
use super::handle::NodeHandle;
use crate::engine::Presence;
use crate::ids::Channel;
use crate::protocol::api::page::{Page, PageParams};
use crate::protocol::command::HistoryRequest;
use crate::protocol::reply::client_bytes;
use crate::publication::ClientInfo;
use crate::store::{History, HistoryLimit, HistoryQuery};

impl NodeHandle {
    /// Reads the messages of a room that retention still shows.
    ///
    /// # Errors
    /// [`RequestError`]
    pub(crate) fn history(
        &self,
        caller: Caller<'_>,
        request: &HistoryRequest,
    ) -> Result<History, RequestError> {
        let channel = &request.channel;
        let options = self.namespace(channel)?;
        if !options.persist {
            return Err(RequestError::NotAvailable);
        }
        self.check_audience(caller, channel, options.read_history)?;
        if request.reverse && request.since.as_ref().is_some_and(|since| since.offset == 0) {
            return Err(RequestError::BadPosition);
        }
        let history = self.store.history(channel, query(request), options.retention());
        let history = history.map_err(|_| AccessError::Unavailable)?;
        check_epoch(request, &history)?;
        debug_assert!(
            history.publications.is_sorted_by(|a, b| a.seq != b.seq && (a.seq > b.seq) == request.reverse),
            "history comes in the order asked for, each message once"
        );
        Ok(history)
    }

    /// True when a right to [`presence`](Self::presence) may have to be read from the database.
    pub(crate) fn presence_asks(&self, caller: Caller<'_>, channel: &Channel) -> bool {
        let options = self.namespace(channel);
        options.is_ok_and(|options| self.asks_for_members(caller, channel, options.read_presence))
    }

    /// The listeners of a room, after everything that was sent to it before.
    ///
    /// # Errors
    /// [`RequestError`]
    pub(crate) fn presence(&self, caller: Caller<'_>, channel: &Channel) -> Result<Presence, RequestError> {
        let options = self.namespace(channel)?;
        if !options.presence {
            return Err(RequestError::NotAvailable);
        }
        self.check_audience(caller, channel, options.read_presence)?;
        let presence = self.engine.presence(channel);
        debug_assert!(presence.users_count <= presence.clients_count, "a subscription has one user");
        debug_assert!(
            presence.clients.len() == if presence.too_large { 0 } else { presence.clients_count },
            "a room's listeners are listed all or not at all"
        );
        Ok(presence)
    }
}

/// A position means something only in the history that it was read from. Asked of what was found, because the
/// history may fork meanwhile.
fn check_epoch(request: &HistoryRequest, found: &History) -> Result<(), RequestError> {
    match &request.since {
        Some(since) if !since.epoch.is_empty() && *since.epoch != *found.epoch => {
            Err(RequestError::Unrecoverable)
        }
        _ => Ok(()),
    }
}

/// A page of the listeners of a room, by client id.
pub(crate) fn page_of(presence: Presence, page: &PageParams) -> Page<Arc<ClientInfo>> {
    let mut clients = presence.clients;
    if let Some(after) = &page.after {
        clients.retain(|client| *client.client > **after);
    }
    clients.sort_unstable_by(|a, b| a.client.cmp(&b.client));
    Page::cut(clients, page.limit, |client| client_bytes(client), |client| client.client.to_string())
}

fn query(request: &HistoryRequest) -> HistoryQuery {
    HistoryQuery {
        since: request.since.as_ref().map(|since| since.offset),
        limit: match request.limit {
            0 => HistoryLimit::None,
            limit => usize::try_from(limit).map_or(HistoryLimit::All, HistoryLimit::Count),
        },
        reverse: request.reverse,
    }
}
