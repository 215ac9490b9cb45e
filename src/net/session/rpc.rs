//! The rpc command: what chat needs and the protocol has no command for.
//!
//! Methods are named `subject.verb`. Another verb of a subject of ours is error 104; any other name, and
//! none, is error 108, as the official SDKs expect it of a server without rpc.

use super::Session;
use super::outcome::CommandError;
use crate::net::queries::Kind;
use crate::protocol::api::decode_rpc;
use crate::protocol::api::page::PageParams;
use crate::protocol::api::params::{RoomsReadParams, RpcPublishParams, UserParams};
use crate::protocol::api::results::{ContactsResult, Done, ReadResult, UnreadResult};
use crate::protocol::code::ErrorCode;
use crate::protocol::command::RpcRequest;
use crate::protocol::reply::Reply;
use crate::publication::Content;

impl Session {
    pub(super) fn rpc(&mut self, id: u32, request: RpcRequest) -> Result<(), CommandError> {
        let data = request.data.as_ref();
        match request.method.as_str() {
            "publish" => {
                let params: RpcPublishParams = decode_rpc(data)?;
                self.rpc_publish(id, params)
            }
            "contacts.add" => self.add_contact(id, data),
            "contacts.remove" => self.remove_contact(id, data),
            "contacts.list" => self.list_contacts(id, data),
            "rooms.read" => self.set_read(id, data),
            "rooms.unread" => self.list_unread(id, data),
            "presence.list" => self.list_presence(id, data),
            #[cfg(test)]
            "test.panic" => panic!("on purpose"),
            other => Err(unknown(other).into()),
        }
    }

    /// The user id of the caller; the anonymous user has no contacts and reads nothing.
    fn user(&self) -> Result<&str, CommandError> {
        match &**self.client()?.user() {
            "" => Err(ErrorCode::PermissionDenied.into()),
            user => Ok(user),
        }
    }

    fn add_contact(&mut self, id: u32, data: Option<&Content>) -> Result<(), CommandError> {
        let params: UserParams = decode_rpc(data)?;
        self.count_contact()?;
        let _slot = self.slot(Kind::Write)?;
        let contact = self.node.add_contact(self.user()?, &params.user)?;
        self.reply(id, Reply::Rpc(&contact));
        Ok(())
    }

    fn remove_contact(&mut self, id: u32, data: Option<&Content>) -> Result<(), CommandError> {
        let params: UserParams = decode_rpc(data)?;
        self.count_request()?;
        let _slot = self.slot(Kind::Write)?;
        self.node.remove_contact(self.user()?, &params.user)?;
        self.reply(id, Reply::Rpc(&Done));
        Ok(())
    }

    fn list_contacts(&mut self, id: u32, data: Option<&Content>) -> Result<(), CommandError> {
        let page: PageParams = decode_rpc(data)?;
        self.count_request()?;
        let _slot = self.slot(Kind::Read)?;
        let contacts = self.node.contacts(self.user()?, &page)?;
        self.reply(id, Reply::Rpc(&ContactsResult(&contacts)));
        Ok(())
    }

    fn set_read(&mut self, id: u32, data: Option<&Content>) -> Result<(), CommandError> {
        let params: RoomsReadParams = decode_rpc(data)?;
        self.count_request()?;
        let _slot = self.slot(Kind::Write)?;
        let result: ReadResult =
            self.node.set_read(self.caller(&params.channel), &params.channel, params.seq)?;
        self.reply(id, Reply::Rpc(&result));
        Ok(())
    }

    fn list_unread(&mut self, id: u32, data: Option<&Content>) -> Result<(), CommandError> {
        let page: PageParams = decode_rpc(data)?;
        self.count_request()?;
        let _slot = self.slot(Kind::Read)?;
        self.user()?;
        let rooms = self.node.unread(self.client()?, &page)?;
        self.reply(id, Reply::Rpc(&UnreadResult(&rooms)));
        Ok(())
    }
}

/// The answer to a method that there is not: a misspelt one of ours, or one of another server.
fn unknown(method: &str) -> ErrorCode {
    match method.split_once('.') {
        Some(("contacts" | "rooms" | "presence", _)) => ErrorCode::MethodNotFound,
        _ => ErrorCode::NotAvailable,
    }
}
