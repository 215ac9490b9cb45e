//! Lists that are told page by page: which part is asked for, and the part that fits an answer.

use serde::Deserialize;
use serde::de::{Deserializer, Error};

use crate::limits::{LIST_ENTRIES_MAX, PAGE_BYTES_MAX};
use crate::protocol::fields;
use crate::protocol::object::{Object, WriteMembers, write_object};

/// The part of a list that is asked for: rpc `contacts.list` and `rooms.unread`, and a part of API parameters.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct PageParams {
    /// The `next` of the page before; `None`: the first page.
    #[serde(default, deserialize_with = "fields::text")]
    pub after: Option<String>,
    /// Most entries wanted.
    #[serde(default = "default_limit", deserialize_with = "limit")]
    pub limit: usize,
}

impl Default for PageParams {
    fn default() -> Self {
        Self { after: None, limit: LIST_ENTRIES_MAX }
    }
}

/// The limit of who names none.
pub(super) fn default_limit() -> usize {
    LIST_ENTRIES_MAX
}

/// A limit within the bounds.
pub(super) fn limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    match Option::<usize>::deserialize(deserializer)? {
        None => Ok(LIST_ENTRIES_MAX),
        Some(limit) if (1..=LIST_ENTRIES_MAX).contains(&limit) => Ok(limit),
        Some(_) => Err(Error::custom(format!("limit must be between 1 and {LIST_ENTRIES_MAX}"))),
    }
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page<T> {
    /// In the order of the list.
    pub entries: Vec<T>,
    /// The `after` of the next page, if there is more.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// The front of a list: at most `limit` entries and the bytes of a page, but one at least. `bytes` is what an
    /// entry takes in the answer, `cursor` its place.
    pub(crate) fn cut(
        mut list: Vec<T>,
        limit: usize,
        bytes: impl Fn(&T) -> usize,
        cursor: impl Fn(&T) -> String,
    ) -> Self {
        let mut left = PAGE_BYTES_MAX;
        let fits = |entry: &&T| match left.checked_sub(bytes(entry) + 1) {
            Some(rest) => {
                left = rest;
                true
            }
            None => false,
        };
        let count = list.iter().take(limit).take_while(fits).count().max(1);
        let has_more = list.len() > count;
        list.truncate(count);
        let next = if has_more { list.last().map(cursor) } else { None };
        Self { entries: list, next }
    }

    /// Writes the list under a name, and `next`.
    pub(super) fn write(&self, object: &mut Object<'_>, name: &'static str)
    where
        T: WriteMembers,
    {
        object.list(name, &self.entries);
        self.write_next(object);
    }

    /// Writes `next`.
    pub(in crate::protocol) fn write_next(&self, object: &mut Object<'_>) {
        object.some_string("next", self.next.as_deref().unwrap_or_default());
    }
}

/// The bytes of an entry as an object.
pub(crate) fn written_bytes(entry: &impl WriteMembers) -> usize {
    let mut out = Vec::new();
    write_object(&mut out, entry);
    out.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(sizes: &[usize], limit: usize) -> (usize, Option<String>) {
        let page = Page::cut(sizes.to_vec(), limit, |size| *size, ToString::to_string);
        (page.entries.len(), page.next)
    }

    #[test]
    fn a_page_has_both_bounds_and_tells_that_there_is_more() {
        assert_eq!(cut(&[1, 2, 3], 3), (3, None));
        assert_eq!(cut(&[1, 2, 3], 2), (2, Some("2".to_owned())));
        assert_eq!(cut(&[], 2), (0, None));
        let half = PAGE_BYTES_MAX / 2;
        assert_eq!(cut(&[half, half - 2, 1], 9), (2, Some((half - 2).to_string())));
        assert_eq!(cut(&[half, half, 1], 9), (1, Some(half.to_string())));
        let large = 2 * PAGE_BYTES_MAX;
        assert_eq!(cut(&[large, 1], 9), (1, Some(large.to_string())), "one goes whatever its size");
    }
}
