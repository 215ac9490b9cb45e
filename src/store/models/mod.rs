//! The statements that read and write the tables, one file per table.

pub(super) mod contact;
pub(super) mod member;
pub(super) mod message;
pub(super) mod meta;
pub(super) mod room;
pub(super) mod trial;
pub(super) mod user;
