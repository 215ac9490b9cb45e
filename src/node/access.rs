//! The rights table: the rules of namespaces, private rooms and limited channels for every caller.
//!
//! The open modes lift what a namespace restricts; they never lift the privacy of a direct room or
//! of a channel that is limited to named users. Decides, and changes nothing.

use std::sync::Arc;

use super::error::AccessError;
use super::handle::NodeHandle;
use crate::config::{Audience, DIRECT_NAMESPACE, Namespace};
use crate::ids::Channel;

/// On whose behalf a request is made.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Caller<'a> {
    /// The operator, through the HTTP API or a program that embeds the node: may do everything.
    Operator,
    /// A client.
    Client {
        /// User id; empty for the anonymous user.
        user: &'a str,
        /// The connection is subscribed to the channel, which proves that it may know it.
        subscribed: bool,
    },
}

impl NodeHandle {
    /// The options of a channel's namespace.
    pub(super) fn namespace(&self, channel: &Channel) -> Result<&Arc<Namespace>, AccessError> {
        self.engine.namespace(channel).ok_or(AccessError::UnknownNamespace)
    }

    /// Checks that the channel is open to the caller and that the caller belongs to the audience.
    pub(super) fn check_audience(
        &self,
        caller: Caller<'_>,
        channel: &Channel,
        audience: Audience,
    ) -> Result<(), AccessError> {
        let Caller::Client { user, subscribed } = caller else { return Ok(()) };
        if !subscribed {
            if self.is_for_subscribers(channel) {
                return Err(AccessError::Forbidden);
            }
            self.check_privacy(channel, user)?;
        }
        let belongs = self.is_open()
            || match audience {
                Audience::Nobody => false,
                Audience::Everyone => true,
                Audience::Users => !user.is_empty(),
                Audience::Subscribers => subscribed,
                Audience::Members => self.is_member(channel, user)?,
            };
        if belongs { Ok(()) } else { Err(AccessError::Forbidden) }
    }

    /// True for a channel that only its subscribers may read, write or count: one may subscribe to it with a token
    /// alone, and what the token guards is not to be had without.
    pub(super) fn is_for_subscribers(&self, channel: &Channel) -> bool {
        let is_token_required = || self.namespace(channel).is_ok_and(|options| options.token_required);
        !self.is_open() && (channel.is_private() || is_token_required())
    }

    /// Checks that a user may know the channel: as a member of a direct room, or as a user that a
    /// limited channel names.
    pub(super) fn check_privacy(&self, channel: &Channel, user: &str) -> Result<(), AccessError> {
        if let Some(mut users) = channel.limited_to()
            && (user.is_empty() || !users.any(|named| named == user))
        {
            return Err(AccessError::Forbidden);
        }
        if channel.namespace() == DIRECT_NAMESPACE && !self.is_member(channel, user)? {
            return Err(AccessError::Forbidden);
        }
        Ok(())
    }

    /// True when [`check_audience`](Self::check_audience) may have to ask the database.
    pub(super) fn asks_for_members(&self, caller: Caller<'_>, channel: &Channel, audience: Audience) -> bool {
        let Caller::Client { subscribed, .. } = caller else { return false };
        (channel.namespace() == DIRECT_NAMESPACE && !subscribed)
            || (audience == Audience::Members && !self.is_open())
    }

    fn is_member(&self, channel: &Channel, user: &str) -> Result<bool, AccessError> {
        if user.is_empty() {
            return Ok(false);
        }
        self.store.is_member(channel, user).map_err(|_| AccessError::Unavailable)
    }
}
