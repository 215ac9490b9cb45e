//! What arrivals, answers and failures mean for the counts of one thread and of the run.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::control::Control;
use crate::dialect::is_limit;
use crate::listener::{Listener, Noted};
use crate::payload::Stamp;
use crate::plan::Plan;
use crate::publisher::{Publisher, Sent};
use crate::sequence::Arrival;
use crate::tally::Tally;

/// Keeps the counts of one thread.
#[derive(Debug)]
pub(crate) struct Recorder {
    plan: Arc<Plan>,
    control: Arc<Control>,
    /// Whether the server answers publishes.
    acknowledges: bool,
    tally: Tally,
    /// Counted here and added to the shared counts once a turn.
    arrived: u64,
}

impl Recorder {
    pub(crate) fn new(plan: Arc<Plan>, control: Arc<Control>, acknowledges: bool) -> Self {
        let tally = Tally::new(&plan);
        Self { plan, control, acknowledges, tally, arrived: 0 }
    }

    /// A message that came with the answer to a listener that was away.
    pub(crate) fn recover(&mut self, listener: &mut Listener, offset: u64, now_ns: u64) -> io::Result<()> {
        self.tally.groups[listener.group].recovered += 1;
        self.arrive(listener, Some(offset), None, now_ns)
    }

    /// A message arrived at a listener.
    ///
    /// # Errors
    /// When its offset cannot be true.
    pub(crate) fn arrive(
        &mut self,
        listener: &mut Listener,
        offset: Option<u64>,
        stamp: Option<Stamp>,
        now_ns: u64,
    ) -> io::Result<()> {
        let group = &mut self.tally.groups[listener.group];
        let Noted { arrival, seq } = listener.note(&self.plan.groups[listener.group], offset, stamp);
        match arrival {
            Arrival::Again => {
                group.repeated += 1;
                return Ok(());
            }
            Arrival::Absurd => {
                return Err(io::Error::other("the server sent an offset far ahead of the last one"));
            }
            Arrival::Late => group.out_of_order += 1,
            Arrival::Next => {}
        }
        self.arrived += 1;
        group.delivered_in_time += u64::from(stamp.is_some() && self.control.counts(now_ns));
        let due_ns = stamp.map(|stamp| stamp.due_ns).filter(|due| self.control.counts(*due));
        let Some(due_ns) = due_ns else { return Ok(()) };
        group.delivered += 1;
        group.delivery.record(due_ns, now_ns);
        if let Some(seq) = seq {
            group.rooms[listener.room].arrive(seq, due_ns, now_ns);
        }
        Ok(())
    }

    /// A publish left.
    pub(crate) fn sent(&mut self) {
        self.control.under_way.fetch_add(1, Ordering::AcqRel);
    }

    /// A publish of this group was accepted.
    pub(crate) fn acknowledged(&mut self, number: usize, sent: Sent, now_ns: u64) {
        let (group, control) = (&mut self.tally.groups[number], &self.control);
        group.rooms[sent.room].owed += 1;
        group.acknowledged_in_time += u64::from(control.counts(now_ns));
        if control.counts(sent.due_ns) {
            group.published += 1;
            group.ack.record(sent.due_ns, now_ns);
        }
        let listeners = self.plan.groups[number].listeners_of(sent.room) as u64;
        control.acknowledged.fetch_add(1, Ordering::AcqRel);
        control.expected.fetch_add(listeners, Ordering::AcqRel);
        control.under_way.fetch_sub(1, Ordering::AcqRel);
    }

    /// A publish of this group was refused.
    pub(crate) fn refused(&mut self, number: usize, error: String) {
        let group = &mut self.tally.groups[number];
        group.refused += 1;
        group.limited += u64::from(is_limit(&error));
        group.refusal.get_or_insert(error);
        self.control.under_way.fetch_sub(1, Ordering::AcqRel);
    }

    /// A connection could not be made, or ended before its time.
    pub(crate) fn broken(&mut self, why: &str) {
        self.tally.broken += 1;
        self.tally.breakage.get_or_insert_with(|| why.to_owned());
        self.control.broken.fetch_add(1, Ordering::AcqRel);
    }

    /// A message of the measured time was read so long after it reached the socket.
    pub(crate) fn read_late(&mut self, late_ns: u64) {
        self.tally.read_late_ns = self.tally.read_late_ns.max(late_ns);
    }

    /// The share of the measured time in which the thread was busy; the first one told stays.
    pub(crate) fn busy(&mut self, share: f64) {
        if self.tally.busiest == 0.0 {
            self.tally.busiest = share;
        }
    }

    /// Adds what arrived in this turn to the shared counts.
    pub(crate) fn end_turn(&mut self) {
        self.control.arrived.fetch_add(std::mem::take(&mut self.arrived), Ordering::AcqRel);
    }

    /// The counts, with what the listeners have and what the publishers still wait for.
    pub(crate) fn finish<'a>(
        mut self,
        listeners: impl Iterator<Item = &'a Listener>,
        publishers: &mut [Publisher],
    ) -> Tally {
        for listener in listeners {
            self.tally.groups[listener.group].rooms[listener.room].ends.push(listener.end());
        }
        // Otherwise nobody has published.
        if self.control.measured().1 != u64::MAX {
            publishers.iter_mut().for_each(|publisher| self.note_unanswered(publisher));
        }
        self.tally
    }

    /// What got no answer, or could not even leave, has waited until now at least.
    fn note_unanswered(&mut self, publisher: &mut Publisher) {
        let (now, run_from, (_, until)) =
            (self.control.now_ns(), self.control.run_from_ns(), self.control.measured());
        let group = &mut self.tally.groups[publisher.group];
        let mut sent: Vec<Sent> = publisher.unanswered().collect();
        for sent in &sent {
            let room = &mut group.rooms[sent.room];
            *(if self.acknowledges { &mut room.unanswered } else { &mut room.owed }) += 1;
        }
        if publisher.due_ns(run_from).is_some() {
            sent.extend(std::iter::from_fn(|| publisher.next(run_from, until - 1)).map(|(_, sent)| sent));
        }
        group.unanswered += sent.len() as u64;
        for sent in sent.iter().filter(|sent| self.control.counts(sent.due_ns)) {
            group.ack.record(sent.due_ns, now);
        }
    }
}
