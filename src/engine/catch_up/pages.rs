//! Pages of the log, shared between the clients that need the same ones.
//!
//! After a restart thousands of clients resume the same room at once. Committed messages do not
//! change while their history lasts, so blocks of them are kept for a while, aligned to multiples of [`BLOCK_PUBLICATIONS`] or to
//! the end of a block before that was cut short by its bytes, and one read serves everybody. What
//! retention hides is filtered when a page is given out.

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::AHashMap;

use crate::clock;
use crate::engine::log::{Log, LogUnavailable};
use crate::ids::{Channel, Seq};
use crate::limits::{BLOCK_PUBLICATIONS, PAGE_CACHE_BYTES_MAX};
use crate::metrics::Metrics;
use crate::publication::{Publication, Retention};
use crate::sync::{Mutex, lock};

/// Blocks of committed messages, read once for everybody that needs them.
pub(super) struct PageCache {
    log: Arc<dyn Log>,
    metrics: Arc<Metrics>,
    blocks: Mutex<Blocks>,
}

/// Everything readable: the cache keeps what the log has, retention is applied later.
const EVERYTHING: Retention = Retention { size: 0, ttl: None };

/// Blocks up to which their bytes are added up after every change, in a debug build.
const BLOCKS_CHECKED_MAX: usize = 64;

type Key = (Channel, Seq);

#[derive(Default)]
struct Blocks {
    by_start: AHashMap<Key, Block>,
    /// In the order they came; the oldest goes first.
    order: VecDeque<Key>,
    bytes: usize,
    /// Number of times that everything was forgotten.
    cleared: u64,
}

#[derive(Clone)]
struct Block {
    publications: Arc<[Publication]>,
    /// The block holds everything up to here that the log held.
    until: Seq,
    /// It ends before the next multiple because its messages are large; the next one starts where it
    /// ends.
    cut: bool,
    bytes: usize,
}

impl PageCache {
    pub(super) fn new(log: Arc<dyn Log>, metrics: Arc<Metrics>) -> Self {
        Self { log, metrics, blocks: Mutex::default() }
    }

    /// Messages `after < seq <= until`, in order, at least one if there is one that may be read;
    /// fewer than all when a block ends. An empty page or one that starts later than `after + 1`
    /// says that messages are gone.
    pub(super) fn page(
        &self,
        channel: &Channel,
        after: Seq,
        until: Seq,
        retention: Retention,
    ) -> Result<Vec<Publication>, LogUnavailable> {
        let mut start = after / BLOCK_PUBLICATIONS * BLOCK_PUBLICATIONS;
        let end = until.min(start + BLOCK_PUBLICATIONS);
        let block = loop {
            let key = (channel.clone(), start);
            let block = match self.cached(&key, after) {
                Some(block) => block,
                None => self.read(key, end)?,
            };
            if block.until > after || !block.cut {
                break block;
            }
            start = block.until;
        };
        debug_assert!(block.until > after || block.until >= end, "a page takes the reader further");
        let now = clock::unix_ms();
        let wanted = block.publications.iter().filter(|publication| {
            publication.seq > after && publication.seq <= end && retention.keeps(publication, until, now)
        });
        Ok(dense_prefix(wanted).cloned().collect())
    }

    /// A block that takes the reader at least one message further, or tells where to go on.
    fn cached(&self, key: &Key, after: Seq) -> Option<Block> {
        let block =
            lock(&self.blocks).by_start.get(key).filter(|block| block.until > after || block.cut)?.clone();
        self.metrics.catch_up_page_hits_total.inc();
        Some(block)
    }

    fn read(&self, key: Key, end: Seq) -> Result<Block, LogUnavailable> {
        self.metrics.catch_up_pages_total.inc();
        let (channel, start) = &key;
        let cleared = lock(&self.blocks).cleared;
        let block = Block::new(self.log.page(channel, *start, end, EVERYTHING)?, end);
        self.keep(key, block.clone(), cleared);
        Ok(block)
    }

    /// Forgets everything, also what is being read just now: the history forked.
    pub(super) fn clear(&self) {
        let mut blocks = lock(&self.blocks);
        let cleared = blocks.cleared + 1;
        *blocks = Blocks { cleared, ..Blocks::default() };
    }

    /// Keeps a block unless all were forgotten since `cleared` was read.
    fn keep(&self, key: Key, block: Block, cleared: u64) {
        let mut blocks = lock(&self.blocks);
        if blocks.cleared != cleared {
            return;
        }
        blocks.bytes += block.bytes;
        if let Some(old) = blocks.by_start.insert(key.clone(), block) {
            blocks.bytes -= old.bytes;
        } else {
            blocks.order.push_back(key);
        }
        while blocks.bytes > PAGE_CACHE_BYTES_MAX {
            let Some(oldest) = blocks.order.pop_front() else { break };
            if let Some(old) = blocks.by_start.remove(&oldest) {
                blocks.bytes -= old.bytes;
            }
        }
        blocks.assert_consistent();
    }
}

impl Blocks {
    fn assert_consistent(&self) {
        debug_assert_eq!(self.order.len(), self.by_start.len(), "every block leaves once");
        debug_assert!(self.bytes <= PAGE_CACHE_BYTES_MAX, "the cache is bounded");
        if cfg!(debug_assertions) && self.by_start.len() <= BLOCKS_CHECKED_MAX {
            let bytes: usize = self.by_start.values().map(|block| block.bytes).sum();
            assert_eq!(self.bytes, bytes, "the bytes of the cache do not add up");
        }
    }
}

impl Block {
    fn new(publications: Vec<Publication>, end: Seq) -> Self {
        let last = publications.last().map_or(end, |last| last.seq);
        let bytes = publications.iter().map(Publication::memory_bytes).sum();
        Self { publications: publications.into(), until: last, cut: last < end, bytes }
    }
}

/// Publications up to the first seq that is missing, so that nobody is given what comes behind a gap before
/// the gap is told. A clock that was set back leaves such gaps in a room with a `history_ttl`.
fn dense_prefix<'p>(
    publications: impl Iterator<Item = &'p Publication>,
) -> impl Iterator<Item = &'p Publication> {
    let mut next = None;
    publications.take_while(move |publication| {
        let is_next = next.is_none_or(|next| publication.seq == next);
        next = Some(publication.seq + 1);
        is_next
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    /// A room of 1,000 messages whose pages hold 100; counts how often it is read.
    #[derive(Default)]
    struct Thousand(AtomicUsize);

    impl Log for Thousand {
        fn head(&self, _: &Channel) -> Result<Seq, LogUnavailable> {
            Ok(1000)
        }

        fn page(
            &self,
            channel: &Channel,
            after: Seq,
            until: Seq,
            _: Retention,
        ) -> Result<Vec<Publication>, LogUnavailable> {
            self.0.fetch_add(1, Ordering::Relaxed);
            let message = |seq| Publication {
                channel: channel.clone(),
                seq,
                data: "1".into(),
                info: None,
                tags: None,
                // Once the clock was set back.
                created_at_ms: if seq == 700 { 0 } else { i64::MAX },
            };
            Ok((after + 1..=until.min(1000)).take(100).map(message).collect())
        }

        fn renew_epoch(&self, epoch: &str) -> Result<Arc<str>, LogUnavailable> {
            Ok(epoch.into())
        }
    }

    fn seqs(cache: &PageCache, after: Seq, until: Seq, retention: Retention) -> Vec<Seq> {
        let channel = Channel::new("room").unwrap();
        cache.page(&channel, after, until, retention).unwrap().iter().map(|one| one.seq).collect()
    }

    #[test]
    fn a_page_begins_behind_after_and_never_goes_past_until() {
        let cache = PageCache::new(Arc::new(Thousand::default()), Arc::new(Metrics::new()));
        // The first fills the cache with more than the others may have.
        for (after, until) in
            [(0, 1000), (0, 7), (3, 7), (99, 100), (100, 105), (150, 1000), (255, 256), (256, 300)]
        {
            let page = seqs(&cache, after, until, EVERYTHING);
            assert!(!page.is_empty() && page[0] == after + 1, "{after}..={until}: {page:?}");
            assert!(page.iter().zip(after + 1..).all(|(seq, expected)| *seq == expected && *seq <= until));
        }
    }

    #[test]
    fn clients_that_missed_the_same_share_one_read() {
        let log = Arc::new(Thousand::default());
        let cache = PageCache::new(log.clone(), Arc::new(Metrics::new()));
        for client in 0..1000 {
            assert!(!seqs(&cache, client % 50, 60, EVERYTHING).is_empty());
        }
        assert_eq!(log.0.load(Ordering::Relaxed), 1);
    }

    /// Blocks of 256 come in three pages of 100 here, as those of large messages do.
    #[test]
    fn pages_that_are_cut_short_are_shared_too() {
        let log = Arc::new(Thousand::default());
        let cache = PageCache::new(log.clone(), Arc::new(Metrics::new()));
        for client in 0..100 {
            let mut after = client * 7;
            while after < 1000 {
                let page = seqs(&cache, after, 1000, EVERYTHING);
                assert_eq!(page.first(), Some(&(after + 1)));
                after += page.len() as u64;
            }
        }
        assert_eq!(log.0.load(Ordering::Relaxed), 3 * 4);
    }

    #[test]
    fn a_page_ends_before_a_message_that_is_too_old() {
        let cache = PageCache::new(Arc::new(Thousand::default()), Arc::new(Metrics::new()));
        let an_hour = Retention { size: 0, ttl: Some(Duration::from_secs(3600)) };
        assert_eq!(seqs(&cache, 695, 705, an_hour), [696, 697, 698, 699]);
        assert_eq!(seqs(&cache, 699, 705, an_hour).first(), Some(&701), "the gap is told by what comes next");
        assert_eq!(seqs(&cache, 695, 705, EVERYTHING).len(), 10);
    }

    #[test]
    fn retention_hides_what_the_cache_still_has() {
        let cache = PageCache::new(Arc::new(Thousand::default()), Arc::new(Metrics::new()));
        assert_eq!(seqs(&cache, 0, 50, EVERYTHING).len(), 50);
        assert_eq!(seqs(&cache, 0, 50, Retention { size: 2, ttl: None }), [49, 50]);
    }
}
