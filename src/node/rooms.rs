//! Rooms as the operator sees them: created by hand, described, and busy or behind right now.

use std::time::Duration;

use super::error::RequestError;
use super::handle::NodeHandle;
use crate::config::{DIRECT_NAMESPACE, Delivery};
use crate::engine::{Lagging, RoomQuery, RoomStatus};
use crate::ids::Channel;
use crate::store::{Member, Role, Room, RoomKind, StoreError};

/// A room with its members.
#[derive(Debug)]
pub(crate) struct RoomDescription {
    pub(crate) room: Room,
    pub(crate) members: Vec<Member>,
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

    /// A room that exists in the database.
    ///
    /// # Errors
    /// [`RequestError::Store`]
    pub(crate) fn room(&self, channel: &Channel) -> Result<RoomDescription, RequestError> {
        let room = self.store.room(channel)?.ok_or(StoreError::UnknownRoom)?;
        let members = self.store.members(channel)?;
        let listeners_count = self.engine.presence(channel).clients_count;
        Ok(RoomDescription { room, members, listeners_count })
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
