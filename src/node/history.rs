//! Reading: the history of a room and who is in it now.

use super::access::Caller;
use super::error::{AccessError, RequestError};
use super::handle::NodeHandle;
use crate::engine::Presence;
use crate::ids::Channel;
use crate::protocol::command::HistoryRequest;
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
        self.check_position(request)?;
        let history = self.store.history(channel, query(request), options.retention());
        Ok(history.map_err(|_| AccessError::Unavailable)?)
    }

    fn check_position(&self, request: &HistoryRequest) -> Result<(), RequestError> {
        let Some(since) = &request.since else { return Ok(()) };
        if !since.epoch.is_empty() && *since.epoch != **self.epoch() {
            return Err(RequestError::Unrecoverable);
        }
        if request.reverse && since.offset == 0 {
            return Err(RequestError::BadPosition);
        }
        Ok(())
    }

    /// Who listens to a room, after everything that was sent to it before.
    ///
    /// # Errors
    /// [`RequestError`]
    pub(crate) fn presence(&self, caller: Caller<'_>, channel: &Channel) -> Result<Presence, RequestError> {
        let options = self.namespace(channel)?;
        if !options.presence {
            return Err(RequestError::NotAvailable);
        }
        self.check_audience(caller, channel, options.read_presence)?;
        Ok(self.engine.presence(channel))
    }
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
