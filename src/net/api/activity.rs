//! The methods about what is in memory now: who listens where, how busy rooms are, who lags.

use std::sync::Arc;
use std::time::Instant;

use super::refusal::{Refusal, done};
use crate::clock;
use crate::ids::Channel;
use crate::metrics;
use crate::net::http::glob;
use crate::node::{Lagging, NodeHandle, Reason, RoomQuery, RoomStatus, Strategy};
use crate::protocol::api::activity::{
    ActiveRoom, LIMIT_MAX, LaggingParams, LaggingResult, LaggingSubscription, RoomOrder, RoomStrategyParams,
    RoomsParams, RoomsResult,
};
use crate::protocol::api::page::{Page, PageParams, written_bytes};
use crate::protocol::api::params::{ChannelsParams, NoParams};
use crate::protocol::api::results::{ChannelsResult, Done, InfoResult, NodeInfo};

pub(super) fn channels(params: ChannelsParams, node: &NodeHandle, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let ChannelsParams { pattern, after, limit } = params;
    done(out, &ChannelsResult(&node.channels(matcher(pattern), &PageParams { after, limit })))
}

pub(super) fn info(_: NoParams, node: &NodeHandle, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let status = node.status();
    let node = NodeInfo {
        uid: status.id,
        name: status.name,
        version: env!("CARGO_PKG_VERSION"),
        num_clients: status.connections,
        num_users: status.users as u64,
        num_channels: status.rooms as u64,
        num_subs: status.subscriptions as u64,
        uptime: status.uptime.as_secs(),
    };
    done(out, &InfoResult(&[node]))
}

pub(super) fn rooms(params: &RoomsParams, node: &NodeHandle, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let query =
        RoomQuery { matches: matcher(params.pattern.clone()), order: params.order, limit: params.limit };
    let rooms: Vec<ActiveRoom> = node.active_rooms(&query).into_iter().map(describe).collect();
    done(out, &RoomsResult(&rooms))
}

pub(super) fn lagging(params: &LaggingParams, node: &NodeHandle, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let (total, lagging) = node.lagging(params.limit);
    debug_assert!(lagging.len() <= total.min(params.limit), "a list is within its limit and its total");
    let subscriptions: Vec<LaggingSubscription<'_>> = lagging.iter().map(describe_lagging).collect();
    let first = Page::cut(subscriptions, params.limit, written_bytes, |_| String::new());
    done(out, &LaggingResult { total: total as u64, subscriptions: &first.entries })
}

pub(super) fn room_strategy(
    params: &RoomStrategyParams,
    node: &NodeHandle,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    node.set_strategy(&params.channel, params.strategy)?;
    done(out, &Done)
}

/// The metrics of the busiest rooms, one series a room, for `GET /metrics?rooms=N`. Only on demand,
/// because every room is one more time series.
pub(in crate::net) fn room_metrics(wanted: &str, node: &NodeHandle) -> Option<String> {
    let limit = wanted.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit))?;
    let query = RoomQuery { order: RoomOrder::Rate, limit, ..RoomQuery::all() };
    let rooms = node.active_rooms(&query).into_iter().map(describe);
    let sample = |room: ActiveRoom| metrics::RoomSample {
        channel: room.channel.as_str().to_owned(),
        listeners: room.listeners,
        lagging: room.lagging,
        rate: room.rate,
        last_activity_seconds: room.last_activity_ms as f64 / 1000.0,
        strategy: room.strategy,
        reason: room.reason,
    };
    Some(metrics::render_rooms(&rooms.map(sample).collect::<Vec<_>>()))
}

fn matcher(pattern: Option<String>) -> Arc<dyn Fn(&Channel) -> bool + Send + Sync> {
    match pattern {
        None => Arc::new(|_| true),
        Some(pattern) => Arc::new(move |channel| glob::matches(&pattern, channel.as_str())),
    }
}

fn describe(room: RoomStatus) -> ActiveRoom {
    let (strategy, reason) = room.choice.unzip();
    ActiveRoom {
        listeners: room.listeners as u64,
        lagging: room.lagging as u64,
        head: room.head,
        rate: room.rate,
        strategy: strategy.map_or("", Strategy::as_str),
        reason: reason.map_or("", Reason::as_str),
        forced: room.forced.map_or("", Strategy::as_str),
        cost_us: u64::try_from(room.cost.as_micros()).unwrap_or(u64::MAX),
        active_since_ms: unix_ms(room.active_since),
        last_activity_ms: unix_ms(room.last_activity),
        channel: room.channel,
    }
}

fn describe_lagging(entry: &Lagging) -> LaggingSubscription<'_> {
    LaggingSubscription {
        client: &entry.subscription.info.client,
        user: &entry.subscription.info.user,
        channel: &entry.subscription.channel,
        cause: entry.cause.as_str(),
        offset: entry.after,
        since_ms: unix_ms(entry.since),
        queued_bytes: entry.subscription.outbox.queued_bytes() as u64,
    }
}

/// A moment of this process as a time of day.
fn unix_ms(at: Instant) -> i64 {
    clock::unix_ms() - i64::try_from(at.elapsed().as_millis()).unwrap_or(0)
}
