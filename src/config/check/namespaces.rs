//! The options of namespaces: defaults, contradictions, and what the reserved `direct` may not become.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::defaults as d;
use super::super::raw::{Given, RawConfig, RawNamespace};
use super::super::{Audience, DIRECT_NAMESPACE, Namespace, Namespaces};
use super::{COUNT_MAX, Checker, given_or, place};

/// The pruner works in steps; a finer age would promise what it can not keep.
const TTL_MIN: Duration = Duration::from_secs(1);
/// A hundred years of 365.25 days: past every plan, far from the end of the clock.
const TTL_MAX: Duration = Duration::from_secs(3_155_760_000);

impl Checker {
    pub(super) fn namespaces(&mut self, raw: &RawConfig) -> Namespaces {
        let default = Arc::new(self.namespace("", &raw.default_namespace));
        let mut named = BTreeMap::new();
        for (name, options) in &raw.namespaces {
            named.insert(name.clone(), Arc::new(self.namespace(name, options)));
        }
        named
            .entry(DIRECT_NAMESPACE.to_owned())
            .or_insert_with(|| Arc::new(self.namespace(DIRECT_NAMESPACE, &RawNamespace::default())));
        Namespaces { default, named }
    }

    fn namespace(&mut self, name: &str, raw: &RawNamespace) -> Namespace {
        let direct = name == DIRECT_NAMESPACE;
        let audience = |given: &Option<Given<Audience>>, default| {
            given_or(given, if direct { d::DIRECT_AUDIENCE } else { default })
        };
        let namespace = Namespace {
            name: name.to_owned(),
            persist: given_or(&raw.persist, d::PERSIST),
            history_size: self.count(&raw.history_size, d::HISTORY_SIZE, 0..=(1 << 53)),
            history_ttl: self.history_ttl(raw),
            presence: given_or(&raw.presence, d::PRESENCE),
            join_leave: given_or(&raw.join_leave, d::JOIN_LEAVE),
            join_leave_max_listeners: self.count(
                &raw.join_leave_max_listeners,
                d::JOIN_LEAVE_MAX_LISTENERS,
                0..=COUNT_MAX,
            ),
            presence_max_listeners: self.count(
                &raw.presence_max_listeners,
                d::PRESENCE_MAX_LISTENERS,
                0..=COUNT_MAX,
            ),
            personal: given_or(&raw.personal, d::PERSONAL),
            token_required: given_or(&raw.token_required, d::TOKEN_REQUIRED),
            auto_create: given_or(
                &raw.auto_create,
                if direct { d::DIRECT_AUTO_CREATE } else { d::AUTO_CREATE },
            ),
            subscribe: audience(&raw.subscribe, d::SUBSCRIBE),
            publish: audience(&raw.publish, d::PUBLISH),
            read_presence: audience(&raw.read_presence, d::READ_PRESENCE),
            read_history: audience(&raw.read_history, d::READ_HISTORY),
            strategy: given_or(&raw.strategy, d::STRATEGY),
            message_bytes_max: self.bytes(&raw.message_bytes_max, d::MESSAGE_BYTES_MAX, 1),
        };
        self.check_subscribe(raw);
        self.check_ephemeral(raw, &namespace);
        if direct {
            self.check_direct(raw, &namespace);
        }
        namespace
    }

    fn history_ttl(&mut self, raw: &RawNamespace) -> Option<Duration> {
        match &raw.history_ttl {
            Some(given) if given.value.is_zero() => None,
            given => {
                Some(self.duration(given, d::HISTORY_TTL, TTL_MIN..=TTL_MAX)).filter(|ttl| !ttl.is_zero())
            }
        }
    }

    fn check_subscribe(&mut self, raw: &RawNamespace) {
        if let Some(Given { value: Audience::Subscribers, place }) = &raw.subscribe {
            self.refuse(
                place.clone(),
                r#""subscribers" would let nobody in; use "nobody", "members", "users" or "everyone""#
                    .to_owned(),
            );
        }
    }

    /// What is not stored has no history to limit; keeping quiet would let an operator believe it had.
    fn check_ephemeral(&mut self, raw: &RawNamespace, namespace: &Namespace) {
        if namespace.persist {
            return;
        }
        let size = raw.history_size.as_ref().map(|given| &given.place);
        let ttl = raw.history_ttl.as_ref().map(|given| &given.place);
        for place in size.into_iter().chain(ttl) {
            self.refuse(
                place.clone(),
                "contradicts persist = false: messages that are not stored have no history; \
                 remove this key, or set persist = true"
                    .to_owned(),
            );
        }
    }

    /// The rooms of two contacts stay private and stored whatever is configured.
    fn check_direct(&mut self, raw: &RawNamespace, namespace: &Namespace) {
        let audiences = [(&raw.subscribe), (&raw.publish), (&raw.read_presence), (&raw.read_history)];
        for given in audiences.into_iter().flatten() {
            if !matches!(given.value, Audience::Nobody | Audience::Members) {
                self.refuse(
                    given.place.clone(),
                    format!(
                        r#"the rooms of two contacts are private: only "members" or "nobody" is possible, got {:?}"#,
                        given.value.name()
                    ),
                );
            }
        }
        let flags = [
            (&raw.persist, namespace.persist, true, "are always stored"),
            (&raw.auto_create, namespace.auto_create, false, "come into being with the contact"),
            (&raw.personal, namespace.personal, false, "are not personal channels"),
        ];
        for (given, value, needed, why) in flags {
            if value != needed {
                self.refuse(
                    place(given, "namespace.direct"),
                    format!("the rooms of two contacts {why}: only {needed} is possible"),
                );
            }
        }
    }
}
