//! The joins that wait for the head of their room, and the question for it: those of a room whose head is not
//! known, and those that name a position ahead of it. Each join has its entry among the look-ups of the pool
//! exactly as long as it waits here.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::engine::catch_up::lookups::HeadQuestion;
use crate::engine::catch_up::pool::CatchUp;
use crate::engine::join::Join;
use crate::engine::subscription::Subscription;
use crate::ids::{Seq, SubscriptionId};

/// The joins of one room that wait for its head.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// There while somebody waits.
    question: Option<Arc<HeadQuestion>>,
    /// The head that the room knew when the question was made: the log has no less.
    known: Seq,
    /// In the order they came.
    joins: BTreeMap<SubscriptionId, Box<Join>>,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.joins.is_empty()
    }

    /// Lets a join wait. It comes back when too many wait in the whole engine.
    pub(super) fn add(
        &mut self,
        join: Box<Join>,
        known: Option<Seq>,
        catch_up: &CatchUp,
    ) -> Result<(), Box<Join>> {
        let question = self.question.get_or_insert_with(|| {
            self.known = known.unwrap_or_default();
            HeadQuestion::new(join.channel().clone())
        });
        if catch_up.look_up_head(&join.subscription, question) {
            self.joins.insert(join.subscription.id(), join);
            return Ok(());
        }
        self.forget_question_of_nobody();
        Err(join)
    }

    /// Takes out the join of a subscription that has ended.
    pub(super) fn give_up(&mut self, subscription: &Subscription, catch_up: &CatchUp) -> Option<Box<Join>> {
        let join = self.joins.remove(&subscription.id())?;
        catch_up.withdraw([&*join].into_iter());
        self.forget_question_of_nobody();
        Some(join)
    }

    /// Takes out all.
    pub(super) fn take(&mut self, catch_up: &CatchUp) -> impl Iterator<Item = Join> + use<> {
        let taken = std::mem::take(self);
        if !taken.is_empty() {
            catch_up.withdraw(taken.joins.values().map(|join| &**join));
        }
        taken.joins.into_values().map(|join| *join)
    }

    /// True when the answer to this question is for those who wait now: an earlier life of the room may have
    /// asked too, and its answer may be older than what was published since.
    pub(super) fn asked(&self, question: &Arc<HeadQuestion>) -> bool {
        self.question.as_ref().is_some_and(|own| Arc::ptr_eq(own, question))
    }

    /// True when the log has less than the room knew before it asked.
    pub(super) fn is_ahead_of(&self, head: Seq) -> bool {
        head < self.known
    }

    pub(super) fn assert_consistent(&self) {
        debug_assert_eq!(
            self.question.is_some(),
            !self.is_empty(),
            "a join waits for no answer, or nobody does"
        );
    }

    fn forget_question_of_nobody(&mut self) {
        if self.is_empty() {
            self.question = None;
        }
    }
}
