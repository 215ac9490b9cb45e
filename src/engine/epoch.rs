//! The history that the numbers of a shard's rooms belong to, by the name that clients know it by.

use crate::sync::Arc;

/// The epoch of a shard. Positions of another one mean nothing in its rooms.
#[derive(Debug, Clone)]
pub(super) struct Epoch {
    name: Arc<str>,
    /// A number was given twice: which positions of this epoch still mean something is not known, and a new
    /// name is on its way.
    is_in_doubt: bool,
}

impl Epoch {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self { name, is_in_doubt: false }
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The same name, whose positions are not believed any more.
    pub(super) fn doubted(&self) -> Self {
        Self { name: self.name.clone(), is_in_doubt: true }
    }

    /// True when rooms of this epoch go on under that name.
    pub(super) fn is_settled(&self, name: &str) -> bool {
        !self.is_in_doubt && *self.name == *name
    }

    /// True when a position that a client has in `theirs` (empty: it does not say) means something here.
    pub(super) fn covers(&self, theirs: &str) -> bool {
        !self.is_in_doubt && (theirs.is_empty() || *theirs == *self.name)
    }
}
