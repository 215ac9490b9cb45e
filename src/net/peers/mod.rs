//! Who is at the other end, and what a connection may cost before it is somebody: the address of a
//! client behind proxies, limits per address, a budget of bytes for strangers, and places kept free
//! for HTTP when clients have filled the server.
//!
//! A *stranger* is a connection that has neither connected nor had a request answered. Nothing here
//! reads or writes a socket or asks for the time: bytes and instants come in, decisions go out.

mod address;
mod address_table;
mod forwarded;
mod limit_log;
mod peer;
mod places;
mod proxy_header;
mod refusal;
mod refusal_log;
mod strangers_budget;

#[cfg(test)]
pub(super) use address::AddressRules;
pub(super) use address::ClientAddress;
pub(super) use peer::{Peer, Peers};
pub(super) use places::PLACES_RESERVED;
pub(super) use proxy_header::ProxyHeader;
pub(super) use refusal::Refusal;
