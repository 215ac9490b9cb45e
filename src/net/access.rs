//! Who may do what: the rules of namespaces, private rooms and limited channels.
//!
//! The open modes lift what a namespace restricts; they never lift the privacy of a direct room or
//! of a channel that is limited to named users.

use std::sync::Arc;

use super::Services;
use crate::config::{Audience, DIRECT_NAMESPACE, Namespace};
use crate::ids::Channel;
use crate::protocol::code::ErrorCode;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker<'a> {
    /// User id; empty for the anonymous user.
    pub(super) user: &'a str,
    /// The connection is subscribed to the channel, which proves that it may know it.
    pub(super) subscribed: bool,
}

impl Services {
    /// The options of a channel, or error 102.
    pub(super) fn options(&self, channel: &Channel) -> Result<&Arc<Namespace>, ErrorCode> {
        self.engine.namespace(channel).ok_or(ErrorCode::UnknownChannel)
    }

    /// Lets the asker pass when the channel is open to it and it belongs to the audience.
    pub(super) fn check(
        &self,
        channel: &Channel,
        audience: Audience,
        asker: Asker<'_>,
    ) -> Result<(), ErrorCode> {
        if !asker.subscribed {
            self.check_privacy(channel, asker.user)?;
        }
        let belongs = self.is_open()
            || match audience {
                Audience::Nobody => false,
                Audience::Everyone => true,
                Audience::Users => !asker.user.is_empty(),
                Audience::Subscribers => asker.subscribed,
                Audience::Members => self.is_member(channel, asker.user)?,
            };
        if belongs { Ok(()) } else { Err(ErrorCode::PermissionDenied) }
    }

    /// Lets a user pass who may know the channel: a member of a direct room, or a user that a
    /// limited channel names.
    pub(super) fn check_privacy(&self, channel: &Channel, user: &str) -> Result<(), ErrorCode> {
        if let Some(mut users) = channel.limited_to()
            && (user.is_empty() || !users.any(|named| named == user))
        {
            return Err(ErrorCode::PermissionDenied);
        }
        if channel.namespace() == DIRECT_NAMESPACE && !self.is_member(channel, user)? {
            return Err(ErrorCode::PermissionDenied);
        }
        Ok(())
    }

    fn is_member(&self, channel: &Channel, user: &str) -> Result<bool, ErrorCode> {
        if user.is_empty() {
            return Ok(false);
        }
        self.store.is_member(channel, user).map_err(|_| ErrorCode::Internal)
    }
}
