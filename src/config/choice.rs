//! Settings that name one of a few alternatives.

/// A type whose values are written by name.
pub(super) trait Choice: Copy + 'static {
    /// Every value, in the order of the documentation.
    const ALL: &'static [Self];

    /// The name that configuration, metrics and the API use.
    fn as_str(self) -> &'static str;

    /// The value with this name.
    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|choice| choice.as_str() == name)
    }
}

/// Guarantee of a commit that has returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// An acked message survives `kill -9` and power loss.
    Full,
    /// An acked message survives `kill -9`; a power loss may take the last moments.
    Normal,
}

impl Durability {
    /// The name in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Normal => "normal",
        }
    }
}

impl Choice for Durability {
    const ALL: &'static [Self] = &[Self::Full, Self::Normal];

    fn as_str(self) -> &'static str {
        Self::as_str(self)
    }
}

/// Content that messages may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadKind {
    /// JSON that every client can read.
    Json,
    /// Any bytes; only clients that speak Protobuf may listen.
    Binary,
}

impl PayloadKind {
    /// The name in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Binary => "binary",
        }
    }
}

impl Choice for PayloadKind {
    const ALL: &'static [Self] = &[Self::Json, Self::Binary];

    fn as_str(self) -> &'static str {
        Self::as_str(self)
    }
}

/// What a copy of the database may lack when it takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failover {
    /// The last moments: clients are told that continuity is lost.
    Lossy,
    /// Nothing: clients go on.
    Lossless,
}

impl Failover {
    /// The name in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lossy => "lossy",
            Self::Lossless => "lossless",
        }
    }
}

impl Choice for Failover {
    const ALL: &'static [Self] = &[Self::Lossy, Self::Lossless];

    fn as_str(self) -> &'static str {
        Self::as_str(self)
    }
}

/// A way to carry a publication to the listeners of its room: which threads send, on how many cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// The thread that committed the message, holding the shard: no hand-off, lowest latency.
    Inline,
    /// The shard's worker, alone.
    Worker,
    /// A pool of one thread a core, while the shard's worker serves other rooms.
    Parallel,
}

impl Strategy {
    /// Every strategy.
    pub const ALL: [Self; 3] = [Self::Inline, Self::Worker, Self::Parallel];

    /// The name that configuration, metrics and the API use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inline => "inline",
            Self::Worker => "worker",
            Self::Parallel => "parallel",
        }
    }
}

/// The strategy an operator asks for: a fixed one, or the one the cost of the room suggests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Chosen by cost, publication by publication.
    Auto,
    /// Always this one, where it is possible.
    Forced(Strategy),
}

impl Delivery {
    /// The delivery with this name: `auto` or that of a strategy.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Choice::named(name)
    }

    /// The name that configuration and the API use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.strategy().map_or("auto", Strategy::as_str)
    }

    /// The strategy, unless the cost decides.
    #[must_use]
    pub fn strategy(self) -> Option<Strategy> {
        match self {
            Self::Auto => None,
            Self::Forced(strategy) => Some(strategy),
        }
    }
}

impl Choice for Delivery {
    const ALL: &'static [Self] = &[
        Self::Auto,
        Self::Forced(Strategy::Inline),
        Self::Forced(Strategy::Worker),
        Self::Forced(Strategy::Parallel),
    ];

    fn as_str(self) -> &'static str {
        Self::as_str(self)
    }
}

/// The clients that may do something in the rooms of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// No client; only the server API.
    Nobody,
    /// Users listed as members of the room in the database.
    Members,
    /// Connections subscribed to the room.
    Subscribers,
    /// Connections with a user id.
    Users,
    /// Every connection.
    Everyone,
}

impl Audience {
    /// The name in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Members => "members",
            Self::Subscribers => "subscribers",
            Self::Users => "users",
            Self::Everyone => "everyone",
        }
    }
}

impl Choice for Audience {
    const ALL: &'static [Self] =
        &[Self::Nobody, Self::Members, Self::Subscribers, Self::Users, Self::Everyone];

    fn as_str(self) -> &'static str {
        Self::as_str(self)
    }
}
