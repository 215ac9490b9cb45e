//! The number of connections that the limits of the system allow: each takes a file.
//!
//! Read once, at the start: a limit that is known then is better than one that is hit later.

use super::peers::PLACES_RESERVED;

/// The most connections at a time, and the limit that sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Connections at a time.
    pub connections: usize,
    /// The smallest limit, by the name under which an operator finds it.
    pub bound: &'static str,
}

/// Files kept free for the database, the listening socket, logs and the like, and for the sockets that are
/// served beyond the limit.
const FILES_RESERVED: u64 = 64 + PLACES_RESERVED as u64;

impl Capacity {
    /// Raises the file limit to the hard limit and takes what it leaves.
    #[must_use]
    pub fn of_system() -> Self {
        let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1024).saturating_sub(FILES_RESERVED);
        Self { connections: usize::try_from(files).unwrap_or(usize::MAX), bound: "open files" }
    }

    /// At most as many as the operator wants.
    #[must_use]
    pub fn at_most(self, wanted: Option<usize>) -> Self {
        match wanted {
            Some(connections) if connections < self.connections => {
                Self { connections, bound: "client.connections_max" }
            }
            _ => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_counts_and_is_named() {
        let files = Capacity { connections: 1000, bound: "open files" };
        assert_eq!(files.at_most(None), files);
        assert_eq!(files.at_most(Some(2000)), files);
        let wanted = Capacity { connections: 10, bound: "client.connections_max" };
        assert_eq!(files.at_most(Some(10)), wanted);
    }

    #[test]
    fn the_system_allows_connections() {
        assert!(Capacity::of_system().connections > 0);
    }
}
