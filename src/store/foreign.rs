//! Messages that are stored by somebody else's transaction: the application's own, which it commits, or gives up,
//! when it likes.
//!
//! The transaction takes the same locks in the same order as a lane's, so no number is given twice and none is left
//! out. Whether it was committed is never believed, it is read: every call is noted here, and a thread, which
//! there is from the first call on, looks at the database until the transaction has ended. What was committed is read back from the
//! log and told to the sink, which knows what it has already.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use diesel::QueryResult;
use diesel::connection::{Connection as _, SimpleConnection, TransactionManager};
use diesel::prelude::*;
use diesel::sql_types::{Integer, Text};

use crate::clock;
use crate::config::Durability;
use crate::ids::{Channel, Seq};
use crate::metrics::Metrics;
use crate::publication::Retention;
use crate::store::connection::{Borrowed, Connection, Purpose, Target};
use crate::store::error::{AppendError, Fault, Outage, StoreError};
use crate::store::history;
use crate::store::lane::{Lanes, store_for_others};
use crate::store::lineage::Lineage;
use crate::store::message::{Appended, Found, NewMessage};
use crate::store::models::{meta, room};
use crate::store::readers::Readers;
use crate::sync::{Mutex, lock};

/// First and longest pause between two looks at transactions that have not ended.
const LOOK_EVERY_MIN: Duration = Duration::from_millis(5);
/// See [`LOOK_EVERY_MIN`].
const LOOK_EVERY_MAX: Duration = Duration::from_millis(500);

/// Age from which on the lock of a SQLite file is tried, to tell a transaction that was given up from one that is
/// open.
const TRY_LOCK_AFTER: Duration = Duration::from_millis(50);

/// Most rooms in which transactions that have not ended have messages; a call may add more than are left.
const PENDING_MAX: usize = 16 * 1024;

/// Longest wait for the lock of a room on PostgreSQL: shorter than that of a lane, and than the time after which
/// the server looks for a deadlock, so that whoever waits crosswise is told so and nobody else is.
#[cfg(feature = "postgres")]
const LOCK_WAIT: &str = "500ms";

/// A connection of the application that messages may be published on.
///
/// These are diesel's `SqliteConnection` and, with the feature `postgres`, its `PgConnection`, also out of a pool of diesel's.
pub trait DatabaseConnection: sealed::Sealed {}

mod sealed {
    use super::Borrowed;

    #[allow(unreachable_pub, reason = "it seals a public trait")]
    pub trait Sealed {
        /// The connection as the store knows it.
        fn borrow(&mut self) -> Borrowed<'_>;

        /// True between the begin and the end of a transaction that diesel knows of.
        fn is_in_transaction(&mut self) -> bool;
    }
}

fn depth<C>(connection: &mut C) -> bool
where
    C: diesel::Connection,
{
    let status = C::TransactionManager::transaction_manager_status_mut(connection);
    status.transaction_depth().is_ok_and(|depth| depth.is_some())
}

impl DatabaseConnection for SqliteConnection {}

impl sealed::Sealed for SqliteConnection {
    fn borrow(&mut self) -> Borrowed<'_> {
        Borrowed::Sqlite(self)
    }

    fn is_in_transaction(&mut self) -> bool {
        depth(self)
    }
}

#[cfg(feature = "postgres")]
impl DatabaseConnection for PgConnection {}

#[cfg(feature = "postgres")]
impl sealed::Sealed for PgConnection {
    fn borrow(&mut self) -> Borrowed<'_> {
        Borrowed::Postgres(self)
    }

    fn is_in_transaction(&mut self) -> bool {
        depth(self)
    }
}

type Pooled<C> = diesel::r2d2::PooledConnection<diesel::r2d2::ConnectionManager<C>>;

impl<C: DatabaseConnection + diesel::r2d2::R2D2Connection + 'static> DatabaseConnection for Pooled<C> {}

impl<C: DatabaseConnection + diesel::r2d2::R2D2Connection + 'static> sealed::Sealed for Pooled<C> {
    fn borrow(&mut self) -> Borrowed<'_> {
        (**self).borrow()
    }

    fn is_in_transaction(&mut self) -> bool {
        (**self).is_in_transaction()
    }
}

/// Messages that were not stored by the application's transaction, which can go on without them.
#[derive(Debug)]
pub(crate) enum ForeignError {
    /// The connection is in no transaction.
    NotInTransaction,
    /// The connection leads to another database.
    OtherDatabase,
    /// Commits of the connection may be lost with the machine's power, and the node promises more.
    NotDurable,
    /// [`PENDING_MAX`] is reached.
    TooManyOpen,
    /// A message was refused.
    Refused(AppendError),
    /// A statement failed, or waited too long for the lock of a room.
    Failed(diesel::result::Error),
}

impl From<diesel::result::Error> for ForeignError {
    fn from(error: diesel::result::Error) -> Self {
        match Fault::of(&error) {
            Fault::Row => Self::Refused(AppendError::Rejected(error.to_string())),
            Fault::Part | Fault::Store => Self::Failed(error),
        }
    }
}

/// The messages of one call in one room, should its transaction be committed.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    channel: Channel,
    /// The numbers.
    first: Seq,
    last: Seq,
    /// Number of the transaction on PostgreSQL.
    transaction: Option<i64>,
    since: Instant,
}

/// The end of a transaction, seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    NotYet,
    RolledBack,
    Committed,
}

/// The calls whose transactions have not been seen to end, and the thread that looks at them.
#[derive(Debug)]
pub(super) struct Foreign {
    shared: Arc<Shared>,
    looking: Mutex<Option<Looking>>,
}

struct Shared {
    target: Target,
    lanes: Arc<Lanes>,
    readers: Arc<Readers>,
    lineage: Arc<Lineage>,
    metrics: Arc<Metrics>,
    pending: Mutex<Vec<Pending>>,
}

/// One look at transactions that have not ended. What is asked of the database holds for all that were noted before.
struct Look<'s> {
    shared: &'s Shared,
    /// By number, on PostgreSQL.
    transactions: AHashMap<i64, Ended>,
    /// Nobody wrote the SQLite file at some moment of this look.
    is_unlocked: Option<bool>,
}

/// The thread; dropping it ends it.
#[derive(Debug)]
struct Looking {
    wake: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Foreign {
    pub(super) fn new(
        target: Target,
        lanes: Arc<Lanes>,
        readers: Arc<Readers>,
        lineage: Arc<Lineage>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let pending = Mutex::default();
        let shared = Arc::new(Shared { target, lanes, readers, lineage, metrics, pending });
        Self { shared, looking: Mutex::default() }
    }

    /// Stores messages by a transaction of the application's, all of them or none. Their numbers, in their order,
    /// and what is to be looked at once it has ended.
    pub(super) fn append(
        &self,
        connection: &mut impl DatabaseConnection,
        messages: &[NewMessage],
    ) -> Result<(Vec<Seq>, Vec<Pending>), ForeignError> {
        if !connection.is_in_transaction() {
            return Err(ForeignError::NotInTransaction);
        }
        if let Err(error) = self.start_looking() {
            tracing::error!(%error, "no thread looks at the transactions of the application");
            return Err(ForeignError::Refused(AppendError::Unavailable));
        }
        if self.shared.metrics.foreign_pending.get() >= PENDING_MAX as i64 {
            return Err(ForeignError::TooManyOpen);
        }
        let messages: Vec<&NewMessage> = messages.iter().collect();
        let work = |mut connection: Borrowed<'_>| self.shared.store(&mut connection, &messages);
        let (seqs, pending) = match connection.borrow() {
            Borrowed::Sqlite(sqlite) => sqlite.transaction(|sqlite| work(Borrowed::Sqlite(sqlite)))?,
            #[cfg(feature = "postgres")]
            Borrowed::Postgres(postgres) => {
                postgres.transaction(|postgres| work(Borrowed::Postgres(postgres)))?
            }
        };
        self.shared.metrics.foreign_pending.add(pending.len() as i64);
        lock(&self.shared.pending).extend(pending.iter().cloned());
        self.wake();
        Ok((seqs, pending))
    }

    /// Looks at what a call has stored. True when all of it is committed, and on its way.
    pub(super) fn pass_on(&self, pending: &[Pending]) -> bool {
        let mut look = Look::new(&self.shared);
        pending
            .iter()
            .all(|pending| look.ended(pending) == Ok(Ended::Committed) && self.shared.tell(pending).is_ok())
    }

    /// Has the thread look now.
    pub(super) fn wake(&self) {
        if let Some(Looking { wake: Some(wake), .. }) = &*lock(&self.looking) {
            let _ = wake.try_send(());
        }
    }

    fn start_looking(&self) -> io::Result<()> {
        let mut looking = lock(&self.looking);
        if looking.is_none() {
            let (wake, woken) = bounded(1);
            let shared = self.shared.clone();
            let thread =
                thread::Builder::new().name("store-foreign".into()).spawn(move || shared.look(&woken))?;
            *looking = Some(Looking { wake: Some(wake), thread: Some(thread) });
        }
        Ok(())
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        drop(self.wake.take());
        // The thread itself may be the last to hold the store, by the sink that it has just told something.
        let others = self.thread.take().filter(|thread| thread.thread().id() != thread::current().id());
        if others.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that looks at foreign transactions panicked");
        }
    }
}

impl Shared {
    /// The life of the thread.
    fn look(&self, woken: &Receiver<()>) {
        let mut pause = LOOK_EVERY_MIN;
        loop {
            let is_idle = lock(&self.pending).is_empty();
            let called = match is_idle {
                true => woken.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => woken.recv_timeout(pause),
            };
            pause = match called {
                Ok(()) => LOOK_EVERY_MIN,
                Err(RecvTimeoutError::Timeout) => (pause * 2).min(LOOK_EVERY_MAX),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut open = std::mem::take(&mut *lock(&self.pending));
            let (noted, mut look) = (open.len(), Look::new(self));
            open.retain(|pending| match look.ended(pending) {
                Ok(Ended::Committed) => self.tell(pending).is_err(),
                Ok(Ended::RolledBack) => false,
                Ok(Ended::NotYet) | Err(_) => true,
            });
            self.metrics.foreign_pending.sub((noted - open.len()) as i64);
            lock(&self.pending).append(&mut open);
        }
    }

    /// The inside of a call, in a savepoint.
    fn store(
        &self,
        connection: &mut Borrowed<'_>,
        messages: &[&NewMessage],
    ) -> Result<(Vec<Seq>, Vec<Pending>), ForeignError> {
        self.check(connection)?;
        let waits = bound_lock_waits(connection)?;
        let stored = store_for_others(connection, messages, clock::unix_ms())?;
        waits.restore(connection)?;
        let seqs: Result<Vec<Seq>, AppendError> =
            stored.outcomes.into_iter().map(|outcome| outcome.map(Appended::seq)).collect();
        let seqs = seqs.map_err(ForeignError::Refused)?;
        let (transaction, since) = (number_of_transaction(connection)?, Instant::now());
        let pending =
            |(channel, before, last)| Pending { channel, first: before + 1, last, transaction, since };
        Ok((seqs, stored.grown.into_iter().map(pending).collect()))
    }

    /// Refuses a connection to another database, and one that commits less durably than the lanes.
    fn check(&self, connection: &mut Borrowed<'_>) -> Result<(), ForeignError> {
        match connection {
            Borrowed::Sqlite(sqlite) => {
                let file: String =
                    diesel::dsl::sql::<Text>("SELECT file FROM pragma_database_list WHERE name = 'main'")
                        .get_result(*sqlite)?;
                if !self.target.path().is_some_and(|path| is_same_file(path, Path::new(&file))) {
                    return Err(ForeignError::OtherDatabase);
                }
                let level: i32 = diesel::dsl::sql::<Integer>("SELECT synchronous FROM pragma_synchronous")
                    .get_result(*sqlite)?;
                let wanted = if self.target.durability() == Durability::Full { 2 } else { 1 };
                if level < wanted {
                    return Err(ForeignError::NotDurable);
                }
            }
            #[cfg(feature = "postgres")]
            Borrowed::Postgres(postgres) => {
                if self.target.is_sqlite() {
                    return Err(ForeignError::OtherDatabase);
                }
                if self.target.durability() == Durability::Full {
                    postgres.batch_execute(
                        "SELECT set_config('synchronous_commit', 'on', true) \
                         WHERE current_setting('synchronous_commit') = 'off'",
                    )?;
                }
            }
        }
        match meta::epoch_on(connection) {
            Ok(Some(epoch)) if epoch == self.lineage.names().1 => Ok(()),
            // It has no table of that name.
            Ok(_) | Err(diesel::result::Error::DatabaseError(..)) => Err(ForeignError::OtherDatabase),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(feature = "postgres")]
    fn ended_on_server(&self, number: i64) -> Result<Ended, StoreError> {
        let status: Option<String> = self.readers.read(move |connection| match connection {
            Connection::Sqlite(_) => Ok(None),
            Connection::Postgres(postgres) => diesel::select(
                diesel::dsl::sql::<diesel::sql_types::Nullable<Text>>("txid_status(")
                    .bind::<diesel::sql_types::BigInt, _>(number)
                    .sql(")"),
            )
            .get_result(postgres),
        })?;
        Ok(match status.as_deref() {
            Some("in progress") => Ended::NotYet,
            Some("aborted") => Ended::RolledBack,
            // So long ago that the server has forgotten it: what is in the log tells.
            _ => Ended::Committed,
        })
    }

    #[cfg(not(feature = "postgres"))]
    fn ended_on_server(&self, _number: i64) -> Result<Ended, StoreError> {
        Ok(Ended::Committed)
    }

    fn head(&self, channel: &Channel) -> Result<Seq, StoreError> {
        let channel = channel.clone();
        self.readers.read(move |connection| Ok(room::find(connection, &channel)?.map_or(0, |room| room.head)))
    }

    /// True when nobody is writing the file now.
    fn is_unlocked(&self) -> Result<bool, StoreError> {
        let unavailable = |error: &dyn fmt::Display| StoreError::Unavailable(Outage::whole(error));
        let connection = self.target.connect(Purpose::Write).map_err(|error| unavailable(&error))?;
        let Connection::Sqlite(mut sqlite) = connection else { return Ok(true) };
        sqlite.batch_execute("PRAGMA busy_timeout = 0")?;
        let is_free = sqlite.batch_execute("BEGIN IMMEDIATE").is_ok();
        if is_free {
            sqlite.batch_execute("ROLLBACK")?;
        }
        Ok(is_free)
    }

    /// Reads what was committed back from the log, and tells it to the sink.
    fn tell(&self, pending: &Pending) -> Result<(), StoreError> {
        let Pending { channel, first, .. } = pending;
        let read = || {
            let (channel, after) = (channel.clone(), first.saturating_sub(1));
            self.readers.read(move |connection| {
                let head = room::find(connection, &channel)?.map_or(0, |room| room.head);
                let page = history::page(connection, &channel, (after, head), Retention::default())?;
                Ok((head, page))
            })
        };
        let generation = self.lineage.generation();
        let (epoch, (head, publications)) = self.lineage.in_one_history(read)?;
        self.lineage.note_commit(self.lanes.of(channel), generation, (channel.clone(), head));
        if let Some(sink) = self.lineage.sink() {
            let found = Found { channel: channel.clone(), epoch, head, at: Instant::now(), publications };
            sink.found(found);
        }
        Ok(())
    }
}

impl<'s> Look<'s> {
    fn new(shared: &'s Shared) -> Self {
        Self { shared, transactions: AHashMap::new(), is_unlocked: None }
    }

    /// The end of a transaction.
    fn ended(&mut self, pending: &Pending) -> Result<Ended, StoreError> {
        let Some(number) = pending.transaction else { return self.ended_in_file(pending) };
        if let Some(ended) = self.transactions.get(&number) {
            return Ok(*ended);
        }
        let ended = self.shared.ended_on_server(number)?;
        self.transactions.insert(number, ended);
        Ok(ended)
    }

    /// A file has one writer, which holds the lock until its transaction has ended: a head that has come so far was
    /// committed by this one, or by one that came after it.
    fn ended_in_file(&mut self, pending: &Pending) -> Result<Ended, StoreError> {
        if self.shared.head(&pending.channel)? >= pending.last {
            return Ok(Ended::Committed);
        }
        if pending.since.elapsed() < TRY_LOCK_AFTER || !self.is_unlocked()? {
            return Ok(Ended::NotYet);
        }
        // It may have been committed between the two looks.
        let is_stored = self.shared.head(&pending.channel)? >= pending.last;
        Ok(if is_stored { Ended::Committed } else { Ended::RolledBack })
    }

    fn is_unlocked(&mut self) -> Result<bool, StoreError> {
        match self.is_unlocked {
            Some(known) => Ok(known),
            None => Ok(*self.is_unlocked.insert(self.shared.is_unlocked()?)),
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("pending", &lock(&self.pending).len()).finish_non_exhaustive()
    }
}

/// The application's own bound on waits for locks, to be put back.
struct LockWaits(Option<String>);

fn bound_lock_waits(connection: &mut Borrowed<'_>) -> QueryResult<LockWaits> {
    match connection {
        Borrowed::Sqlite(_) => Ok(LockWaits(None)),
        #[cfg(feature = "postgres")]
        Borrowed::Postgres(postgres) => {
            let before: String =
                diesel::dsl::sql::<Text>("SELECT current_setting('lock_timeout')").get_result(*postgres)?;
            postgres.batch_execute(&format!("SET LOCAL lock_timeout = '{LOCK_WAIT}'"))?;
            Ok(LockWaits(Some(before)))
        }
    }
}

impl LockWaits {
    fn restore(self, connection: &mut Borrowed<'_>) -> QueryResult<()> {
        match (connection, self.0) {
            #[cfg(feature = "postgres")]
            (Borrowed::Postgres(postgres), Some(before)) => {
                postgres.batch_execute(&format!("SET LOCAL lock_timeout = '{before}'"))
            }
            _ => Ok(()),
        }
    }
}

fn number_of_transaction(connection: &mut Borrowed<'_>) -> QueryResult<Option<i64>> {
    match connection {
        Borrowed::Sqlite(_) => Ok(None),
        #[cfg(feature = "postgres")]
        Borrowed::Postgres(postgres) => {
            diesel::dsl::sql::<diesel::sql_types::BigInt>("SELECT txid_current()")
                .get_result(*postgres)
                .map(Some)
        }
    }
}

fn is_same_file(ours: &Path, theirs: &Path) -> bool {
    match (fs::canonicalize(ours), fs::canonicalize(theirs)) {
        (Ok(ours), Ok(theirs)) => ours == theirs,
        _ => false,
    }
}
