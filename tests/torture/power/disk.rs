//! A disk that loses its power: what was synced is there, and of the rest whatever chance left.

use std::collections::BTreeMap;

use super::record::{Change, FOLDER, What};
use crate::form::Random;

/// The files of a folder, by name.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// The part of a write that reaches the disk at once.
const SECTOR: usize = 512;

/// So many changes that are not synced are tried in each combination; more by samples.
const COMBINED_MAX: usize = 5;

/// Samples of each kind.
const SAMPLES: usize = 6;

#[derive(Default)]
pub(super) struct Disk {
    synced: Files,
    /// What no sync has covered, each with its place in the order of all changes.
    open: Vec<(usize, Change)>,
    changes: usize,
}

/// What is left of each change that was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    Nothing,
    All,
    /// The first half of its sectors.
    Half,
}

impl Disk {
    pub(super) fn change(&mut self, change: Change) {
        self.open.push((self.changes, change));
        self.changes += 1;
    }

    /// Makes what a sync covers last: of a file all changes, of a folder the files that went.
    pub(super) fn sync(&mut self, name: &str, changes_before: usize) {
        let covers = |at: usize, change: &Change| {
            let of_file = change.name == name || (name == FOLDER && matches!(change.what, What::Remove));
            at < changes_before && of_file
        };
        let covered: Vec<_> = self.open.extract_if(.., |(at, change)| covers(*at, change)).collect();
        for (_, change) in covered {
            apply(&mut self.synced, &change, Left::All);
        }
    }

    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// The files after a power cut that left `left` of the open changes.
    pub(super) fn after(&self, left: &[Left]) -> Files {
        let mut files = self.synced.clone();
        for ((_, change), left) in self.open.iter().zip(left) {
            apply(&mut files, change, *left);
        }
        files
    }
}

fn apply(files: &mut Files, change: &Change, left: Left) {
    match (&change.what, left) {
        (_, Left::Nothing) => {}
        (What::Write { offset, data }, _) => {
            let sectors = data.len().div_ceil(SECTOR);
            let length = if left == Left::Half { data.len().min(sectors / 2 * SECTOR) } else { data.len() };
            let file = files.entry(change.name.clone()).or_default();
            file.resize(file.len().max(offset + length), 0);
            file[*offset..offset + length].copy_from_slice(&data[..length]);
        }
        (What::Truncate { size }, _) => files.entry(change.name.clone()).or_default().resize(*size, 0),
        (What::Remove, _) => {
            files.remove(&change.name);
        }
    }
}

/// What may be left of so many open changes: every combination of a few; of many none, all, beginnings, all but one, a
/// torn last one, and random ones.
pub(super) fn combinations(open: usize, random: &mut Random) -> Vec<Vec<Left>> {
    let whole = |keep: &mut dyn FnMut(usize) -> bool| -> Vec<Left> {
        (0..open).map(|at| if keep(at) { Left::All } else { Left::Nothing }).collect()
    };
    let mut all: Vec<Vec<Left>> = Vec::new();
    if open <= COMBINED_MAX {
        all.extend((0..1_usize << open).map(|bits| whole(&mut |at| bits >> at & 1 == 1)));
    } else {
        all.extend([whole(&mut |_| false), whole(&mut |_| true)]);
        for _ in 0..SAMPLES {
            let one = random.below(open as u64) as usize;
            all.push(whole(&mut |at| at < one));
            all.push(whole(&mut |at| at != one));
            all.push(whole(&mut |_| random.one_in(2)));
        }
    }
    if open > 0 {
        let torn = random.below(open as u64) as usize;
        let mut beginning = whole(&mut |at| at < torn);
        beginning[torn] = Left::Half;
        let mut but_torn = whole(&mut |_| true);
        but_torn[torn] = Left::Half;
        all.extend([beginning, but_torn]);
    }
    all
}
