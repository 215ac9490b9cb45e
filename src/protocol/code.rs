//! Every number the server tells a client: error, close and unsubscribe codes with their texts.

use std::borrow::Cow;
use std::fmt;

use crate::limits::CLOSE_REASON_BYTES_MAX;

/// Declares one family of codes: the variant, its number, its text, and what it means.
macro_rules! codes {
    ($(#[$about:meta])* $family:ident: $number:ty { $($(#[doc = $doc:literal])+ $name:ident = $value:literal, $words:literal;)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr($number)]
        pub enum $family {
            $($(#[doc = $doc])+ $name = $value,)+
        }

        impl $family {
            /// Every code of this family, by number.
            #[cfg(test)]
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The number on the wire.
            pub const fn number(self) -> $number {
                self as $number
            }

            /// The text on the wire.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $words,)+
                }
            }
        }

        impl fmt::Display for $family {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} {}", self.number(), self.as_str())
            }
        }
    };
}

codes! {
    /// Reason for which a command failed; the connection stays open.
    ErrorCode: u16 {
        /// The server failed; trying again later may work.
        Internal = 100, "internal server error";
        /// The channel's namespace is not configured, or the room does not exist.
        UnknownChannel = 102, "unknown channel";
        /// Not allowed.
        PermissionDenied = 103, "permission denied";
        /// There is no rpc method of this name.
        MethodNotFound = 104, "method not found";
        /// The connection holds this subscription already.
        AlreadySubscribed = 105, "already subscribed";
        /// More channels than one connection may hold.
        LimitExceeded = 106, "limit exceeded";
        /// The command makes no sense or holds an illegal value.
        BadRequest = 107, "bad request";
        /// The feature is off for this channel or not supported.
        NotAvailable = 108, "not available";
        /// The token is past its time or not valid yet; a new one is needed.
        TokenExpired = 109, "token expired";
        /// Too fast; trying again later works.
        TooManyRequests = 111, "too many requests";
        /// The position asked for cannot be continued from.
        UnrecoverablePosition = 112, "unrecoverable position";
        /// A room of this name exists already, or another message has this key.
        Conflict = 113, "conflict";
        /// The room holds binary payloads, which a client that speaks JSON cannot read.
        BinaryRoom = 400, "binary payloads: connect with protobuf";
    }
}

codes! {
    /// Reason for which the server ends a connection.
    CloseCode: u16 {
        /// The connection ended without a close frame; for logs and metrics only.
        ConnectionClosed = 3000, "connection closed";
        /// The server stops.
        Shutdown = 3001, "shutdown";
        /// The server failed while it served this connection.
        InternalServerError = 3004, "internal server error";
        /// The connection's token expired and was not refreshed.
        ConnectionExpired = 3005, "connection expired";
        /// The socket took no byte for too long.
        Slow = 3008, "slow";
        /// A server-side subscription lost its position.
        InsufficientState = 3010, "insufficient state";
        /// A ping was not answered in time.
        NoPong = 3012, "no pong";
        /// The client went on although it was refused for haste.
        TooManyRequests = 3013, "too many requests";
        /// The token is malformed, forged, or for somebody else.
        InvalidToken = 3500, "invalid token";
        /// The client broke the protocol.
        BadRequest = 3501, "bad request";
        /// No connect command came in time.
        Stale = 3502, "stale";
        /// The operator ended the connection.
        ForceDisconnect = 3503, "force disconnect";
        /// More server-side subscriptions than allowed.
        ChannelLimit = 3505, "channel limit";
        /// Anonymous users may not connect.
        PermissionDenied = 3507, "permission denied";
        /// The client sent something nobody listens to.
        NotAvailable = 3508, "not available";
    }
}

codes! {
    /// Reason for which the server ends a subscription.
    UnsubscribeCode: u16 {
        /// The operator ended it; the client stays unsubscribed.
        Server = 2000, "server unsubscribe";
        /// Continuity was lost; the client subscribes again and recovers.
        InsufficientState = 2500, "insufficient state";
        /// Its token expired; the client subscribes again with a new one.
        Expired = 2501, "subscription expired";
    }
}

impl ErrorCode {
    /// True when the client shall try again by itself.
    pub const fn temporary(self) -> bool {
        matches!(self, Self::Internal | Self::TooManyRequests)
    }

    /// The HTTP status that stands for this code when errors are to be told by status.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Internal => 500,
            Self::TokenExpired => 401,
            Self::PermissionDenied => 403,
            Self::UnknownChannel | Self::MethodNotFound => 404,
            Self::BadRequest | Self::NotAvailable | Self::LimitExceeded | Self::BinaryRoom => 400,
            Self::AlreadySubscribed | Self::Conflict => 409,
            Self::UnrecoverablePosition => 416,
            Self::TooManyRequests => 429,
        }
    }
}

/// Code and reason of a close frame: one of the server's own codes, or what an operator chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    code: u16,
    reason: Cow<'static, str>,
}

impl Close {
    /// A code and reason from an operator.
    ///
    /// # Errors
    /// Says why SDKs would misunderstand it: the code is outside of 3000 to 4999, or the reason is
    /// empty, too long for a close frame, or itself valid JSON.
    pub fn custom(code: u16, reason: String) -> Result<Self, &'static str> {
        if !(3000..=4999).contains(&code) {
            return Err("the close code is not in 3000 to 4999");
        }
        if reason.is_empty() || reason.len() > CLOSE_REASON_BYTES_MAX {
            return Err("the close reason has no or more than 123 bytes");
        }
        if serde_json::from_str::<serde::de::IgnoredAny>(&reason).is_ok() {
            return Err("the close reason is JSON, which clients would misread");
        }
        Ok(Self { code, reason: Cow::Owned(reason) })
    }

    /// The number in the close frame.
    pub const fn code(&self) -> u16 {
        self.code
    }

    /// The reason in the close frame.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl From<CloseCode> for Close {
    fn from(code: CloseCode) -> Self {
        Self { code: code.number(), reason: Cow::Borrowed(code.as_str()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reaction of clients to a close code.
    fn reconnects(code: u16) -> bool {
        !matches!(code, 3500..=3999 | 4500..=4999)
    }

    #[test]
    fn every_close_code() {
        let table: &[(u16, &str, bool)] = &[
            (3000, "connection closed", true),
            (3001, "shutdown", true),
            (3004, "internal server error", true),
            (3005, "connection expired", true),
            (3008, "slow", true),
            (3010, "insufficient state", true),
            (3012, "no pong", true),
            (3013, "too many requests", true),
            (3500, "invalid token", false),
            (3501, "bad request", false),
            (3502, "stale", false),
            (3503, "force disconnect", false),
            (3505, "channel limit", false),
            (3507, "permission denied", false),
            (3508, "not available", false),
        ];
        let ours: Vec<_> = CloseCode::ALL
            .iter()
            .map(|code| (code.number(), code.as_str(), reconnects(code.number())))
            .collect();
        assert_eq!(ours, table);
        for &code in CloseCode::ALL {
            assert!(Close::custom(code.number(), code.as_str().to_owned()).is_ok(), "{code}");
            let close = Close::from(code);
            assert_eq!((close.code(), close.reason()), (code.number(), code.as_str()));
        }
        assert_eq!(CloseCode::NoPong.to_string(), "3012 no pong");
    }

    #[test]
    fn close_reasons_of_operators_are_checked() {
        let custom = |code, reason: &str| Close::custom(code, reason.to_owned());
        assert!(custom(4999, "bye").is_ok_and(|close| !reconnects(close.code())));
        assert!(custom(4000, &"x".repeat(123)).is_ok_and(|close| reconnects(close.code())));
        for (code, reason) in [
            (2999, "bye"),
            (5000, "bye"),
            (4000, ""),
            (4000, "123"),
            (4000, "null"),
            (4000, "{}"),
            (4000, &"x".repeat(124)),
        ] {
            assert!(custom(code, reason).is_err(), "{code} {reason}");
        }
    }

    #[test]
    fn every_error_code_has_a_status() {
        let statuses: Vec<_> =
            ErrorCode::ALL.iter().map(|code| (code.number(), code.http_status())).collect();
        assert_eq!(
            statuses,
            [
                (100, 500),
                (102, 404),
                (103, 403),
                (104, 404),
                (105, 409),
                (106, 400),
                (107, 400),
                (108, 400),
                (109, 401),
                (111, 429),
                (112, 416),
                (113, 409),
                (400, 400)
            ]
        );
    }

    #[test]
    fn unsubscribe_codes_say_whether_to_come_back() {
        // SDKs subscribe again from 2500 on.
        let back: Vec<_> = UnsubscribeCode::ALL.iter().map(|code| code.number() >= 2500).collect();
        assert_eq!(back, [false, true, true]);
    }
}
