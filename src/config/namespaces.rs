//! All namespaces: the default one, the named ones, and the reserved `direct`.
//!
//! Checks what must hold inside one namespace: no retention without storage, and what `direct` must
//! stay whatever is configured.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::choice::Audience;
use super::error::{Origin, Problem};
use super::sections::{Namespace, RawNamespace};
use super::setting::{Given, Location, Problems, join, location};
use crate::publication::Retention;

/// Name of the namespace that holds the rooms of two contacts.
pub const DIRECT_NAMESPACE: &str = "direct";

/// Longest name of a namespace: it is a metric label, and a part of every channel name.
const NAME_BYTES_MAX: usize = 64;

/// All namespaces. `direct` is reserved: the rooms of two contacts.
#[derive(Debug, Clone)]
pub struct Namespaces {
    /// For channels without a `:`.
    pub default: Arc<Namespace>,
    /// For channels with a `:`, by the part before it; always holds `direct`.
    pub named: BTreeMap<String, Arc<Namespace>>,
}

impl Namespaces {
    /// The namespace of that name, if it is configured; the empty name is the default one.
    pub fn get(&self, name: &str) -> Option<&Arc<Namespace>> {
        if name.is_empty() { Some(&self.default) } else { self.named.get(name) }
    }

    /// All namespaces, the default one first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Namespace>> {
        std::iter::once(&self.default).chain(self.named.values())
    }
}

impl Namespaces {
    /// All settings as if they had been given. A namespace whose name is illegal is left out and told.
    pub(super) fn given(&self, problems: &mut Vec<Problem>) -> RawNamespaces {
        let mut raw = RawNamespaces { default: self.default.effective(""), ..RawNamespaces::default() };
        for (name, namespace) in &self.named {
            match raw.entry(name) {
                Ok(entry) => *entry = namespace.effective(name),
                Err(message) => {
                    problems.push(Problem { origin: Origin::Default, key: join("namespace", name), message });
                }
            }
        }
        raw
    }
}

impl Namespace {
    /// The settings under this name; without storage there is no history to limit, unless a program set one.
    fn effective(&self, name: &str) -> RawNamespace {
        let section = if name.is_empty() { self.section() } else { join("namespace", name) };
        let mut raw = self.given(&section);
        if !self.persist && self.history_size == 0 {
            raw.history_size = None;
        }
        if !self.persist && self.history_ttl.is_none() {
            raw.history_ttl = None;
        }
        raw
    }

    /// The messages of its rooms that can be read.
    #[must_use]
    pub fn retention(&self) -> Retention {
        Retention { size: self.history_size, ttl: self.history_ttl }
    }

    /// Its section of the configuration.
    pub(super) fn section(&self) -> String {
        match self.name.as_str() {
            "" => "default_namespace".to_owned(),
            name => join("namespace", name),
        }
    }

    /// The settings that may be given: without storage there is no history to limit.
    pub(super) fn effective_lines(&self) -> Vec<(&'static str, Option<String>)> {
        let mut lines = self.lines();
        lines.retain(|(key, _)| self.persist || !key.starts_with("history_"));
        lines
    }
}

/// [`Namespaces`] as given.
#[derive(Debug, Clone, Default)]
pub(super) struct RawNamespaces {
    pub(super) default: RawNamespace,
    pub(super) named: BTreeMap<String, RawNamespace>,
}

impl RawNamespaces {
    /// The options of a named namespace, which is thereby configured.
    pub(super) fn entry(&mut self, name: &str) -> Result<&mut RawNamespace, String> {
        let legal = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(legal) {
            return Err(format!(
                "the name of a namespace is 1 to {NAME_BYTES_MAX} of the characters a-z 0-9 _ -, got {name:?}"
            ));
        }
        Ok(self.named.entry(name.to_owned()).or_default())
    }

    /// The options given for a namespace; the empty name is the default one.
    pub(super) fn get(&self, name: &str) -> Option<&RawNamespace> {
        if name.is_empty() { Some(&self.default) } else { self.named.get(name) }
    }

    pub(super) fn checked(&self, problems: &mut Problems) -> Namespaces {
        let default = Arc::new(checked("", &self.default, problems));
        let mut named: BTreeMap<_, _> = self
            .named
            .iter()
            .filter(|(name, _)| *name != DIRECT_NAMESPACE)
            .map(|(name, raw)| (name.clone(), Arc::new(checked(name, raw, problems))))
            .collect();
        let direct = self.named.get(DIRECT_NAMESPACE).cloned().unwrap_or_default();
        named.insert(DIRECT_NAMESPACE.to_owned(), Arc::new(checked_direct(direct, problems)));
        Namespaces { default, named }
    }
}

fn checked(name: &str, raw: &RawNamespace, problems: &mut Problems) -> Namespace {
    let namespace = Namespace::checked(raw, problems, (name.to_owned(),));
    check_subscribe(raw, problems);
    check_ephemeral(raw, &namespace, problems);
    namespace
}

fn check_subscribe(raw: &RawNamespace, problems: &mut Problems) {
    if let Some(Given { value: Ok(Audience::Subscribers), location }) = &raw.subscribe {
        problems.refuse(
            location.clone(),
            r#""subscribers" would let nobody in; use "nobody", "members", "users" or "everyone""#.to_owned(),
        );
    }
}

/// A limit without effect would let an operator believe that there is a history.
fn check_ephemeral(raw: &RawNamespace, namespace: &Namespace, problems: &mut Problems) {
    if namespace.persist {
        return;
    }
    let size = raw.history_size.as_ref().map(|given| &given.location);
    let ttl = raw.history_ttl.as_ref().map(|given| &given.location);
    for location in size.into_iter().chain(ttl) {
        problems.refuse(
            location.clone(),
            "contradicts persist = false: messages that are not stored have no history; \
             remove this key, or set persist = true"
                .to_owned(),
        );
    }
}

/// The namespace `direct`, which has some defaults of its own.
fn checked_direct(mut raw: RawNamespace, problems: &mut Problems) -> Namespace {
    for audience in [&mut raw.subscribe, &mut raw.publish, &mut raw.read_presence, &mut raw.read_history] {
        audience.get_or_insert_with(|| direct_default(Audience::Members));
    }
    raw.auto_create.get_or_insert_with(|| direct_default(false));
    let namespace = checked(DIRECT_NAMESPACE, &raw, problems);
    check_audiences(&raw, problems);
    check_flags(&raw, &namespace, problems);
    namespace
}

fn direct_default<T>(value: T) -> Given<T> {
    let key = join("namespace", DIRECT_NAMESPACE);
    Given { value: Ok(value), location: Location { origin: Origin::Default, key } }
}

/// The rooms of two contacts stay private whatever is configured.
fn check_audiences(raw: &RawNamespace, problems: &mut Problems) {
    let audiences = [&raw.subscribe, &raw.publish, &raw.read_presence, &raw.read_history];
    for given in audiences.into_iter().flatten() {
        let Ok(audience) = given.value else { continue };
        if !matches!(audience, Audience::Nobody | Audience::Members) {
            problems.refuse(
                given.location.clone(),
                format!(
                    r#"the rooms of two contacts are private: only "members" or "nobody" is possible, got {:?}"#,
                    audience.as_str()
                ),
            );
        }
    }
}

/// The rooms of two contacts stay stored, and are created with the contact only.
fn check_flags(raw: &RawNamespace, namespace: &Namespace, problems: &mut Problems) {
    let flags = [
        (&raw.persist, namespace.persist, true, "are always stored"),
        (&raw.auto_create, namespace.auto_create, false, "are created with the contact"),
        (&raw.personal, namespace.personal, false, "are not personal channels"),
    ];
    for (given, value, needed, why) in flags {
        if value != needed {
            problems.refuse(
                location(given.as_ref(), "namespace.direct"),
                format!("the rooms of two contacts {why}: only {needed} is possible"),
            );
        }
    }
}
