//! HTTP: requests and answers, and the routes from one to the other.

mod authority;
mod bad_request;
mod body;
mod exchange;
#[cfg(any(test, feature = "fuzzing"))]
pub(in crate::net) mod fuzz;
pub(super) mod glob;
mod local;
mod message;
mod origin;
mod page;
mod routes;

pub(super) use exchange::{Exchange, Outcome};
pub(super) use message::{Head, Response};
pub(crate) use routes::Router;
