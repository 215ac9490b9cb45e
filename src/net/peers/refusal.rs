//! Why a socket or an upgrade is refused, and what is said about it.

/// A limit that has been reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::net) enum Refusal {
    /// The server holds as many sockets as it may.
    Full,
    /// The server holds as many WebSockets as it may; HTTP is still answered.
    FullOfClients,
    /// The strangers together hold as many bytes as they may.
    StrangerBytes,
    /// One address has as many sockets as it may.
    AddressSockets,
    /// One address opens sockets faster than it may.
    AddressRate,
    /// One address has as many strangers as it may.
    AddressStrangers,
}

impl Refusal {
    /// Every reason.
    #[cfg(test)]
    pub(in crate::net) const ALL: [Self; 6] = [
        Self::Full,
        Self::FullOfClients,
        Self::StrangerBytes,
        Self::AddressSockets,
        Self::AddressRate,
        Self::AddressStrangers,
    ];

    /// The label under which it is counted.
    pub(in crate::net) fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::FullOfClients => "full_of_clients",
            Self::StrangerBytes => "stranger_bytes",
            Self::AddressSockets => "address_sockets",
            Self::AddressRate => "address_rate",
            Self::AddressStrangers => "address_strangers",
        }
    }

    /// The status of the answer: 429 when the address is the cause, 503 when the server is.
    pub(in crate::net) fn status(self) -> u16 {
        match self {
            Self::Full | Self::FullOfClients | Self::StrangerBytes => 503,
            Self::AddressSockets | Self::AddressRate | Self::AddressStrangers => 429,
        }
    }

    /// Seconds after which another try may succeed. Sockets of one address end one by one, by themselves
    /// or by missed pings; the rest is a matter of a second.
    pub(in crate::net) fn retry_after(self) -> u64 {
        match self {
            Self::AddressSockets => 10,
            Self::AddressStrangers | Self::StrangerBytes => 2,
            Self::Full | Self::FullOfClients | Self::AddressRate => 1,
        }
    }

    /// One line for who reads the answer.
    pub(in crate::net) fn text(self) -> &'static str {
        match self {
            Self::Full | Self::FullOfClients => "the server has no free connection",
            Self::StrangerBytes => "too many connections are being opened",
            Self::AddressSockets => {
                "too many connections from this address; a proxy is named in client.trusted_proxies"
            }
            Self::AddressRate => "this address opens connections too fast",
            Self::AddressStrangers => "too many connections from this address have not connected yet",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_refusal_is_counted_under_a_label_of_its_own() {
        let labels: HashSet<&str> = Refusal::ALL.iter().map(|refusal| refusal.as_str()).collect();
        assert_eq!(labels.len(), Refusal::ALL.len());
    }
}
