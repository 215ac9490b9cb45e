//! One conformance list of the store, run on SQLite and on PostgreSQL.
//!
//! Every check gets an empty database and can open it several times. Threads have the small stack
//! of the server's reader threads, since those lead commits.

// The functions of a test are all tests: their panics are their reports.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "store/concurrency.rs"]
mod concurrency;
#[path = "store/contacts.rs"]
mod contacts;
#[path = "store/docs.rs"]
mod docs;
#[path = "store/failover.rs"]
mod failover;
#[path = "store/failures.rs"]
mod failures;
#[path = "store/faults.rs"]
mod faults;
#[path = "store/forks.rs"]
mod forks;
#[path = "store/handoff.rs"]
mod handoff;
#[path = "store/hangs.rs"]
mod hangs;
#[path = "support/in_time.rs"]
#[allow(unreachable_pub, reason = "shared with the tests of the server")]
mod in_time;
#[path = "store/log.rs"]
mod log;
#[path = "store/migrations.rs"]
mod migrations;
#[path = "store/opening.rs"]
mod opening;
#[path = "store/plans.rs"]
mod plans;
#[path = "support/pooler.rs"]
mod pooler;
#[path = "support/postgres.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests of the server")]
mod postgres;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "store/retention.rs"]
mod retention;
#[path = "support/temp.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests of the server")]
mod temp;
#[path = "store/vocabulary.rs"]
mod vocabulary;

use std::panic::{AssertUnwindSafe, catch_unwind};

use postgres::Cluster;
use vocabulary::{Backend, SqliteDirectory};

type Check = (&'static str, fn(&Backend));

/// Everything that holds on both databases.
fn conformance() -> Vec<Check> {
    [
        log::CHECKS,
        opening::CHECKS,
        concurrency::CHECKS,
        retention::CHECKS,
        contacts::CHECKS,
        handoff::CHECKS,
        failures::CHECKS,
        forks::CHECKS,
    ]
    .concat()
    .into_iter()
    .chain(docs::CHECKS.iter().copied())
    .chain(faults::CHECKS.iter().copied())
    .chain(hangs::CHECKS.iter().copied())
    .collect()
}

/// Runs every check and names the ones that failed.
fn run(checks: &[Check], mut fresh: impl FnMut() -> Backend) {
    let failed: Vec<&str> = checks
        .iter()
        .filter(|(name, check)| {
            eprintln!("check: {name}");
            let backend = fresh();
            catch_unwind(AssertUnwindSafe(|| check(&backend))).is_err()
        })
        .map(|(name, _)| *name)
        .collect();
    assert!(failed.is_empty(), "failed: {failed:?}");
}

#[test]
fn sqlite_conforms() {
    let directory = SqliteDirectory::new();
    run(&conformance(), || directory.fresh());
}

#[test]
fn postgres_conforms() {
    let cluster = Cluster::start();
    run(&conformance(), || Backend::Postgres(cluster.database()));
}

#[test]
fn sqlite_survives_a_full_and_a_vanished_database() {
    let directory = SqliteDirectory::new();
    run(failures::SQLITE_CHECKS, || directory.fresh());
}

#[test]
fn sqlite_files_have_one_server_and_one_user() {
    let directory = SqliteDirectory::new();
    run(opening::SQLITE_CHECKS, || directory.fresh());
}

#[test]
fn postgres_finds_rows_by_index() {
    let cluster = Cluster::start();
    run(plans::POSTGRES_CHECKS, || Backend::Postgres(cluster.database()));
}

#[test]
fn postgres_has_an_encoding_and_schemas() {
    let cluster = Cluster::start();
    run(opening::POSTGRES_CHECKS, || Backend::Postgres(cluster.database()));
    opening::only_utf8(&cluster);
}

#[test]
fn sqlite_notices_an_older_file() {
    let directory = SqliteDirectory::new();
    run(forks::SQLITE_CHECKS, || directory.fresh());
}

#[test]
fn postgres_may_be_replaced_by_a_copy() {
    let mut cluster = Cluster::start();
    forks::a_role_without_rights_knows_the_epoch_of_the_database(&cluster);
    forks::a_promoted_copy_has_another_timeline(&mut cluster);
    forks::a_copy_that_is_behind_takes_over(&mut cluster);
}

#[test]
fn postgres_may_have_two_hosts() {
    failover::a_standby_that_lacks_nothing_takes_over();
    failover::a_demoted_server_is_left_for_the_other();
}

#[test]
fn postgres_may_go_away_and_come_back() {
    let mut cluster = Cluster::start();
    failures::a_stopped_server_heals(&mut cluster);
    failures::a_commit_of_unknown_outcome_reaches_the_listeners(&cluster);
}

#[test]
fn postgres_failures_are_not_blamed_on_messages() {
    let mut cluster = Cluster::start();
    faults::a_primary_key_is_not_the_messages(&cluster);
    faults::a_value_that_an_index_cannot_take_is_the_messages(&cluster);
    faults::a_locked_room_fails_alone(&cluster);
    faults::a_locked_table_is_one_outage(&cluster);
    faults::a_demoted_server_is_left(&cluster);
    faults::sessions_that_are_shared_are_refused(&cluster);
    faults::a_pooler_of_sessions_is_no_difference(&mut cluster);
}

#[test]
fn postgres_may_hang_and_nobody_with_it() {
    let mut cluster = Cluster::start();
    hangs::a_commit_that_hangs_is_not_lost(&cluster);
    hangs::a_frozen_server_holds_nobody(&cluster);
    hangs::an_idle_store_notices_a_dead_server(&mut cluster);
}

#[test]
fn migrations_are_the_same_on_both_and_go_up_and_down() {
    let directory = SqliteDirectory::new();
    let cluster = Cluster::start();
    migrations::names_are_the_same();
    migrations::up_down_up(&directory.fresh());
    migrations::up_down_up(&Backend::Postgres(cluster.database()));
    migrations::tables_and_columns_are_the_same(&directory.fresh(), &Backend::Postgres(cluster.database()));
}
