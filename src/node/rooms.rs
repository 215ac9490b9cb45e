//! Rooms as the operator sees them: created by hand, described, and busy or behind right now.

use std::sync::Arc;
use std::time::Duration;

use super::error::RequestError;
use super::handle::NodeHandle;
use crate::config::{DIRECT_NAMESPACE, Delivery};
use crate::engine::{Lagging, RoomQuery, RoomStatus};
use crate::ids::Channel;
use crate::protocol::api::page::{Page, PageParams, written_bytes};
use crate::protocol::api::results::{ChannelsResult, RoomMember};
use crate::store::{Role, Room, RoomKind, StoreError};

/// A room with its members.
#[derive(Debug)]
pub(crate) struct RoomDescription {
    pub(crate) room: Room,
    /// A page of them.
    pub(crate) members: Page<RoomMember>,
    /// Subscriptions right now.
    pub(crate) listeners_count: usize,
}

/// The node and its load.
#[derive(Debug)]
pub(crate) struct NodeStatus<'a> {
    /// Unique id of the process.
    pub(crate) id: &'a str,
    /// Name of the machine.
    pub(crate) name: &'a str,
    /// Since the start.
    pub(crate) uptime: Duration,
    /// Connections.
    pub(crate) connections: u64,
    /// Different users connected; all anonymous connections count as one.
    pub(crate) users: usize,
    /// Rooms with a listener.
    pub(crate) rooms: usize,
    /// Subscriptions.
    pub(crate) subscriptions: usize,
}

impl NodeHandle {
    /// Creates a room with its members.
    ///
    /// # Errors
    /// [`RequestError::NotAvailable`] in a namespace whose rooms are not created by hand.
    pub(crate) fn create_room(
        &self,
        channel: &Channel,
        kind: RoomKind,
        members: &[(&str, Role)],
    ) -> Result<(), RequestError> {
        let options = self.namespace(channel)?;
        if !options.persist || options.name == DIRECT_NAMESPACE {
            return Err(RequestError::NotAvailable);
        }
        Ok(self.store.create_room(channel, kind, members)?)
    }

    /// A room that exists in the database, with a page of its members.
    ///
    /// # Errors
    /// [`RequestError::Store`]
    pub(crate) fn room(&self, channel: &Channel, page: &PageParams) -> Result<RoomDescription, RequestError> {
        let room = self.store.room(channel)?.ok_or(StoreError::UnknownRoom)?;
        let after = page.after.as_deref().unwrap_or_default();
        let members = self.store.members(channel, after, page.limit + 1)?.into_iter();
        let members = members.map(|one| RoomMember { user: one.user.into(), last_read: one.last_read });
        let members =
            Page::cut(members.collect(), page.limit, written_bytes, |member| member.user.to_string());
        let listeners_count = self.engine.presence(channel).clients_count;
        Ok(RoomDescription { room, members, listeners_count })
    }

    /// A page of the rooms that somebody listens to now and the pattern matches, by name, with their listeners.
    pub(crate) fn channels(
        &self,
        matches: Arc<dyn Fn(&Channel) -> bool + Send + Sync>,
        page: &PageParams,
    ) -> Page<(Channel, u64)> {
        let after = page.after.clone().unwrap_or_default();
        let is_wanted = move |channel: &Channel| channel.as_str() > after.as_str() && matches(channel);
        let query = RoomQuery { matches: Arc::new(is_wanted), ..RoomQuery::all() };
        let rooms = self.engine.rooms(&query).into_iter().filter(|room| room.listeners > 0);
        let mut rooms: Vec<_> = rooms.map(|room| (room.channel, room.listeners as u64)).collect();
        rooms.sort_unstable();
        Page::cut(rooms, page.limit, ChannelsResult::entry_bytes, |(channel, _)| channel.to_string())
    }

    /// Status of the active rooms that the query selects, in its order. Rooms change meanwhile.
    pub(crate) fn active_rooms(&self, query: &RoomQuery) -> Vec<RoomStatus> {
        self.engine.rooms(query)
    }

    /// Subscriptions that are served from the database now, those first that are so for longest; at
    /// most `limit` of them, and how many there are.
    pub(crate) fn lagging(&self, limit: usize) -> (usize, Vec<Lagging>) {
        self.engine.lagging(limit)
    }

    /// Sets the delivery strategy of a room until it is reset (`None`) or the node stops.
    ///
    /// # Errors
    /// [`RequestError::LimitExceeded`] when too many rooms have one already.
    pub(crate) fn set_strategy(
        &self,
        channel: &Channel,
        strategy: Option<Delivery>,
    ) -> Result<(), RequestError> {
        self.namespace(channel)?;
        if self.engine.override_strategy(channel, strategy) {
            Ok(())
        } else {
            Err(RequestError::LimitExceeded)
        }
    }

    /// The node right now.
    pub(crate) fn status(&self) -> NodeStatus<'_> {
        let rooms = self.engine.rooms(&RoomQuery::all());
        NodeStatus {
            id: &self.identity.id,
            name: &self.identity.name,
            uptime: self.identity.started_at.elapsed(),
            connections: u64::try_from(self.metrics().connections.get()).unwrap_or(0),
            users: self.engine.users_count(),
            rooms: rooms.iter().filter(|room| room.listeners > 0).count(),
            subscriptions: rooms.iter().map(|room| room.listeners).sum(),
        }
    }
}
