//! The table of settings: the macro that makes a section of it, and what a given value carries.
//!
//! One entry of a table is everything the program knows about a setting by itself. Rules between
//! settings are in `check`, the order of the sources in `load`.

use toml::de::DeValue;

use super::error::{Origin, Problem};
use super::kind::{Flaw, Kind, Literal};

/// A setting, described for people.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The section, empty for the top; `namespace.NAME` stands for every named namespace.
    pub section: &'static str,
    /// The name inside the section.
    pub name: &'static str,
    /// The default, as TOML.
    pub default: &'static str,
    /// The meaning, in one sentence or two.
    pub help: &'static str,
    /// The range of the values in a few words; empty when there is none.
    pub range: fn() -> String,
    /// The value is a secret or holds one; it may be in a file of its own, which `NAME_file` names.
    pub is_secret: fn() -> bool,
}

impl Key {
    /// `section.name`
    #[must_use]
    pub fn path(&self) -> String {
        join(self.section, self.name)
    }

    /// The environment variable; `NAME` stands for the upper-cased name of a namespace.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("ROOMCAST_{}", self.path().replace('.', "_").to_ascii_uppercase())
    }
}

/// `section.name`, or the name alone at the top.
pub(super) fn join(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

/// A value that was given, and where.
#[derive(Debug, Clone)]
pub(super) struct Given<T> {
    /// The value, or why it is not legal.
    pub(super) value: Result<T, String>,
    pub(super) location: Location,
}

/// The source of a value, and its key.
#[derive(Debug, Clone)]
pub(super) struct Location {
    pub(super) origin: Origin,
    pub(super) key: String,
}

/// A value was not taken.
#[derive(Debug)]
pub(super) enum Refusal {
    /// There is no such key.
    Unknown,
    /// The key exists, the value is wrong.
    Wrong(String),
}

impl<T> Given<T> {
    pub(super) fn read(
        kind: &impl Kind<T>,
        literal: Literal<'_>,
        location: Location,
    ) -> Result<Self, Refusal> {
        match kind.read(literal) {
            Ok(value) => Ok(Self { value: Ok(value), location }),
            Err(Flaw::Value(message)) => Ok(Self { value: Err(message), location }),
            Err(Flaw::Type(message)) => Err(Refusal::Wrong(message)),
        }
    }
}

impl<T> Given<T> {
    /// A value that a program set.
    pub(super) fn again(kind: &impl Kind<T>, value: &T, key: String) -> Self {
        let value = kind.again(value).map_err(|(Flaw::Type(message) | Flaw::Value(message))| message);
        Self { value, location: Location { origin: Origin::Default, key } }
    }
}

/// The location of a value; that of the default when none was given.
pub(super) fn location<T>(given: Option<&Given<T>>, key: &str) -> Location {
    match given {
        Some(given) => given.location.clone(),
        None => Location { origin: Origin::Default, key: key.to_owned() },
    }
}

/// The problems found so far. Reading goes on after each, so that all are reported together.
#[derive(Debug, Default)]
pub(super) struct Problems(pub(super) Vec<Problem>);

impl Problems {
    pub(super) fn refuse(&mut self, location: Location, message: String) {
        debug_assert!(!message.is_empty(), "{}: a refusal gives no reason", location.key);
        self.0.push(Problem { origin: location.origin, key: location.key, message });
    }

    /// The value that was given, or the default when none was, or none that is legal.
    pub(super) fn value_or_default<T: Clone>(
        &mut self,
        given: Option<&Given<T>>,
        kind: &impl Kind<T>,
        default: &str,
    ) -> T {
        match given {
            Some(Given { value: Ok(value), .. }) => return value.clone(),
            Some(Given { value: Err(message), location }) => self.refuse(location.clone(), message.clone()),
            None => {}
        }
        read_default(kind, default)
    }
}

/// A default out of the table. Each is read whenever nothing is given, so a wrong one fails every test.
fn read_default<T>(kind: &impl Kind<T>, default: &str) -> T {
    let value = DeValue::parse(default).map_err(|error| error.to_string());
    let read = |value: &DeValue<'_>| kind.read(Literal::Toml(value)).map_err(|flaw| format!("{flaw:?}"));
    match value.and_then(|value| read(value.get_ref())) {
        Ok(value) => value,
        Err(reason) => unreachable!("the default {default} is not legal: {reason}"),
    }
}

/// Makes one section of the configuration out of its table.
///
/// ```text
/// /// Rules for client connections.
/// pub struct Client from RawClient in "client" {
///     /// Time between two pings of the server.
///     ///
///     /// Shorter than the 30 s after which common proxies cut a quiet connection.
///     ping_interval: Duration = "25s", Time(TIMER);
/// }
/// ```
///
/// A setting is its help text (the first line of documentation; further lines are for readers of
/// the code), its name, the type of its field, its default as TOML, and its [`Kind`] with the range.
/// Out of it come the public struct with the checked values, the raw one with what was given, the
/// list of keys, and the lines that show the section. A second block, after `and`, holds fields that
/// are no settings; they are handed to `checked`.
macro_rules! settings {
    (
        $(#[doc = $doc:literal])+
        pub struct $name:ident from $raw:ident in $section:literal {$(
            #[doc = $help:literal]
            $(#[doc = $more:literal])*
            $key:ident: $type:ty = $default:tt, $kind:expr;
        )+}
        $(and {$(
            $(#[doc = $part_doc:literal])+
            $part:ident: $part_type:ty;
        )+})?
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone)]
        pub struct $name {
            $(
                #[doc = $help]
                $(#[doc = $more])*
                #[doc = ""]
                #[doc = concat!(" Default: `", stringify!($default), "`.")]
                pub $key: $type,
            )+
            $($($(#[doc = $part_doc])+ pub $part: $part_type,)+)?
        }

        #[doc = concat!("[`", stringify!($name), "`] as given: every setting may be missing.")]
        #[derive(Debug, Clone, Default)]
        pub(super) struct $raw {
            $(pub(super) $key: Option<$crate::config::setting::Given<$type>>,)+
        }

        impl $raw {
            pub(super) const KEYS: &'static [$crate::config::setting::Key] = &[$(
                $crate::config::setting::Key {
                    section: $section,
                    name: stringify!($key),
                    default: stringify!($default),
                    help: $help.trim_ascii(),
                    range: || $crate::config::kind::Kind::<$type>::range(&$kind),
                    is_secret: || $crate::config::kind::Kind::<$type>::is_secret(&$kind),
                },
            )+];

            /// Takes one value; a later one replaces an earlier one.
            pub(super) fn set(
                &mut self,
                name: &str,
                literal: $crate::config::kind::Literal<'_>,
                location: $crate::config::setting::Location,
            ) -> Result<(), $crate::config::setting::Refusal> {
                match name {
                    $(stringify!($key) => {
                        self.$key = Some($crate::config::setting::Given::read(&$kind, literal, location)?);
                    })+
                    _ => return Err($crate::config::setting::Refusal::Unknown),
                }
                Ok(())
            }
        }

        impl $name {
            /// Every setting given or default, each legal on its own.
            pub(super) fn checked(
                raw: &$raw,
                problems: &mut $crate::config::setting::Problems,
                $(($($part,)+): ($($part_type,)+))?
            ) -> Self {
                Self {
                    $($key: problems.value_or_default(raw.$key.as_ref(), &$kind, stringify!($default)),)+
                    $($($part,)+)?
                }
            }

            /// Every setting as if it had been given, each taken again.
            pub(super) fn given(&self, section: &str) -> $raw {
                $raw {
                    $($key: Some($crate::config::setting::Given::again(
                        &$kind,
                        &self.$key,
                        $crate::config::setting::join(section, stringify!($key)),
                    )),)+
                }
            }

            /// Every setting with its value as TOML; without one when it is a secret that is set.
            pub(super) fn lines(&self) -> Vec<(&'static str, Option<String>)> {
                vec![$((stringify!($key), $crate::config::kind::Kind::<$type>::show(&$kind, &self.$key)),)+]
            }
        }
    };
}

pub(super) use settings;
