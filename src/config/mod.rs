//! The configuration: settings an operator can change, checked, one struct a section.
//!
//! `sections` and `root` hold the table of settings, which `setting` turns into types. `file` and
//! `env` read what was given, `load` puts the sources together, `check` holds the rules between
//! settings. A part of the program is handed its section, never the whole.

mod check;
mod choice;
mod database_url;
mod env;
mod error;
mod file;
mod kind;
mod load;
mod log_filter;
mod namespaces;
mod nearest;
mod number;
mod root;
mod secret;
mod secret_file;
mod sections;
mod setting;
mod text;
mod trusted_proxies;

pub use choice::{Audience, Delivery, Durability, Failover, PayloadKind, Strategy};
pub use database_url::DatabaseUrl;
pub use env::CONFIG_FILE;
pub use error::{ConfigError, Origin, Problem};
pub use load::{Flag, Loaded, Sources};
pub use namespaces::{DIRECT_NAMESPACE, Namespaces};
pub use root::{Config, Mode, keys};
pub use secret::Secret;
pub use sections::{Api, Client, Database, Log, Namespace, Rooms};
pub use setting::Key;
pub(crate) use text::host_of_origin;
pub use trusted_proxies::{TrustedProxies, is_private};

#[cfg(test)]
mod tests;
