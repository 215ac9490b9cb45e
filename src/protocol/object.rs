//! Writes JSON objects straight into a buffer: no intermediate values, nothing to fail.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::json::{push_line, push_number, push_string};

/// A JSON object being written; [`Object::end`] closes it.
///
/// Member names are the protocol's own and need no escaping. The `some_…` methods leave a member
/// out when it has the value that the protocol treats as absent.
#[derive(Debug)]
pub struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

/// A value that writes itself as the members of an object: every result of a command or an API call.
pub trait WriteMembers {
    /// Adds the members to `object`.
    fn write(&self, object: &mut Object<'_>);
}

impl fmt::Debug for dyn WriteMembers + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WriteMembers")
    }
}

impl<'a> Object<'a> {
    /// Opens an object at the end of `out`.
    pub(crate) fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    /// Closes the object.
    pub(crate) fn end(self) {
        self.out.push(b'}');
    }

    /// Adds a name that needs escaping and returns the buffer to write its value to.
    pub(crate) fn key(&mut self, name: &str) -> &mut Vec<u8> {
        self.comma();
        push_string(self.out, name);
        self.out.push(b':');
        self.out
    }

    /// Adds a name and returns the buffer to write its value to.
    pub(crate) fn value(&mut self, name: &'static str) -> &mut Vec<u8> {
        self.comma();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// Adds a string.
    pub(crate) fn string(&mut self, name: &'static str, text: &str) {
        push_string(self.value(name), text);
    }

    /// Adds a string unless it is empty.
    pub(crate) fn some_string(&mut self, name: &'static str, text: &str) {
        if !text.is_empty() {
            self.string(name, text);
        }
    }

    /// Adds a number.
    pub(crate) fn number(&mut self, name: &'static str, number: u64) {
        push_number(self.value(name), number);
    }

    /// Adds a number unless it is 0.
    pub(crate) fn some_number(&mut self, name: &'static str, number: u64) {
        if number != 0 {
            self.number(name, number);
        }
    }

    /// Adds `true`, or nothing.
    pub(crate) fn some_true(&mut self, name: &'static str, holds: bool) {
        if holds {
            self.raw(name, "true");
        }
    }

    /// Adds a value that is JSON text already.
    pub(crate) fn raw(&mut self, name: &'static str, json: &str) {
        self.value(name).extend_from_slice(json.as_bytes());
    }

    /// Adds a value that is JSON text already, if there is one.
    pub(crate) fn some_raw(&mut self, name: &'static str, json: Option<&str>) {
        if let Some(json) = json {
            self.raw(name, json);
        }
    }

    /// Adds bytes as text in base64.
    pub(crate) fn base64(&mut self, name: &'static str, bytes: &[u8]) {
        self.string(name, &STANDARD.encode(bytes));
    }

    /// Adds a payload, which is JSON text that may have line breaks: each becomes a space.
    pub(crate) fn payload(&mut self, name: &'static str, json: &str) {
        push_line(self.value(name), json);
    }

    /// Adds an object.
    pub(crate) fn object(&mut self, name: &'static str, members: &(impl WriteMembers + ?Sized)) {
        write_object(self.value(name), members);
    }

    /// Adds a list of objects.
    pub(crate) fn list<'i, M: WriteMembers + 'i>(
        &mut self,
        name: &'static str,
        items: impl IntoIterator<Item = &'i M>,
    ) {
        let out = self.value(name);
        out.push(b'[');
        for (at, item) in items.into_iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            write_object(out, item);
        }
        out.push(b']');
    }

    fn comma(&mut self) {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
    }
}

/// Appends a whole object made of `members`.
pub(super) fn write_object(out: &mut Vec<u8>, members: &(impl WriteMembers + ?Sized)) {
    let mut object = Object::begin(out);
    members.write(&mut object);
    object.end();
}
