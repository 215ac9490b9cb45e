//! The floor of storing in PostgreSQL: one connection, one insert per transaction, written as
//! `VALUES` with all rows or as arrays that `unnest` takes apart.
//!
//! What the connection's own server process uses is told apart from what this process uses.

use std::time::Instant;

use diesel::connection::SimpleConnection;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::sql_types::{Array, BigInt, Nullable, Text};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::common::cpu;
use super::common::postgres::Cluster;
use super::log::{ROOMS, Row, Rows, cases, messages};
use super::measure::{Case, Cost, Floor, Group};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/postgres");

/// The ways to write the insert.
const VALUES: &str = "values";
const UNNEST: &str = "unnest";

diesel::define_sql_function! {
    /// The id of the process that serves this connection.
    fn pg_backend_pid() -> diesel::sql_types::Integer;
}

pub(crate) fn group() -> Group {
    Group {
        cases: cases("postgres", VALUES).chain(cases("postgres", UNNEST)).collect(),
        open: Box::new(|| Box::new(Postgres::open())),
    }
}

struct Postgres {
    connection: PgConnection,
    backend: i32,
    rows: Rows,
    _cluster: Cluster,
}

impl Postgres {
    fn open() -> Self {
        let cluster = Cluster::start();
        let mut connection = PgConnection::establish(&cluster.database()).unwrap();
        connection.batch_execute("SET synchronous_commit = on").unwrap();
        connection.run_pending_migrations(MIGRATIONS).unwrap();
        let backend = diesel::select(pg_backend_pid()).get_result(&mut connection).unwrap();
        Self { connection, backend, rows: Rows::of(ROOMS), _cluster: cluster }
    }
}

impl Floor for Postgres {
    fn run(&mut self, case: &Case, rounds: u64) -> Cost {
        let mut cost = Cost::default();
        let backend_before = cpu::of_other(self.backend);
        for _ in 0..rounds {
            let rows = self.rows.next(case.batch.unwrap());
            let (started, cpu_before) = (Instant::now(), cpu::of_process());
            commit(&mut self.connection, rows, case.form.unwrap()).unwrap();
            cost.wall += started.elapsed();
            cost.cpu += cpu::of_process() - cpu_before;
        }
        cost.backend_cpu = Some(cpu::of_other(self.backend) - backend_before);
        cost
    }
}

fn commit(connection: &mut PgConnection, rows: Vec<Row<'_>>, form: &str) -> QueryResult<()> {
    connection.batch_execute("BEGIN")?;
    if form == VALUES {
        diesel::insert_into(messages::table).values(rows).execute(connection)?;
    } else {
        InsertArrays::new(&rows).execute(connection)?;
    }
    connection.batch_execute("COMMIT")
}

/// The rows, column by column.
struct InsertArrays<'r> {
    numbers: [Vec<i64>; 3],
    optional_texts: [Vec<Option<&'r str>>; 6],
    data: Vec<&'r str>,
}

impl<'r> InsertArrays<'r> {
    fn new(rows: &[Row<'r>]) -> Self {
        let numbers = |part: fn(&Row<'r>) -> i64| rows.iter().map(part).collect();
        let texts = |part: fn(&Row<'r>) -> Option<&'r str>| rows.iter().map(part).collect();
        Self {
            numbers: [numbers(|row| row.room_id), numbers(|row| row.seq), numbers(|row| row.created_at)],
            optional_texts: [
                texts(|row| row.sender),
                texts(|row| row.client_id),
                texts(|row| row.conn_info),
                texts(|row| row.chan_info),
                texts(|row| row.tags),
                texts(|row| row.client_key),
            ],
            data: rows.iter().map(|row| row.data).collect(),
        }
    }
}

impl QueryFragment<Pg> for InsertArrays<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(
            "INSERT INTO messages (room_id, seq, created_at, sender, client_id, conn_info, chan_info, \
             tags, client_key, data) SELECT * FROM unnest(",
        );
        for column in &self.numbers {
            out.push_bind_param::<Array<BigInt>, _>(column)?;
            out.push_sql(", ");
        }
        for column in &self.optional_texts {
            out.push_bind_param::<Array<Nullable<Text>>, _>(column)?;
            out.push_sql(", ");
        }
        out.push_bind_param::<Array<Text>, _>(&self.data)?;
        out.push_sql(")");
        Ok(())
    }
}

/// Lets diesel prepare the statement once.
impl QueryId for InsertArrays<'_> {
    type QueryId = InsertArrays<'static>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl RunQueryDsl<PgConnection> for InsertArrays<'_> {}

/// Runs a command with the URL of an empty database in the place of `{url}`, and ends with its exit code.
/// A last line of JSON tells the processor time of the database's own processes meanwhile.
#[allow(clippy::print_stdout, reason = "this is what the program is for")]
pub(crate) fn run_beside(command: &[String]) {
    let cluster = Cluster::start();
    let url = cluster.database();
    let arguments = command[1..].iter().map(|argument| argument.replace("{url}", &url));
    let before = cluster.used();
    let status = std::process::Command::new(&command[0]).args(arguments).status().unwrap();
    println!("{{\"database_cpu_us\":{}}}", (cluster.used() - before).as_micros());
    drop(cluster);
    std::process::exit(status.code().unwrap_or(1));
}
