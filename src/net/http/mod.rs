//! HTTP: requests and answers, and the routes from one to the other.

pub(super) mod glob;
mod message;
mod origin;
mod page;
mod routes;

pub(super) use message::{Head, Response, is_timeout};
pub(crate) use routes::Router;
