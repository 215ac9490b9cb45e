//! The way of a publish from the socket of its sender to that of a listener, on SQLite, function by function.
//!
//! ARCHITECTURE.md tells the way in words; here each step is looked for in the code, so a step that was
//! renamed or moved, or whose name the step before it no longer holds, fails.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::TokenTree;
use syn::visit::{self, Visit};

use crate::tree::{Source, flat, sources};
use crate::{assert_none, root};

/// A function, and an earlier one that calls it. `QUEUE` instead of a caller: it begins with what an earlier
/// step has put into a queue, so another thread may run it.
type Step = (&'static str, &'static str, &'static str);

const QUEUE: &str = "";

/// In the order in which they are entered first.
const WAY: &[Step] = &[
    ("net/readers/mod.rs", "serve_event", QUEUE),
    ("net/readers/seats.rs", "take", "serve_event"),
    ("net/readers/mod.rs", "serve", "serve_event"),
    ("net/readers/mod.rs", "give_turns", "serve"),
    ("net/connection.rs", "turn", "give_turns"),
    ("net/websocket/connection.rs", "turn", "turn"),
    ("net/websocket/connection.rs", "serve", "turn"),
    ("net/websocket/connection.rs", "take_messages", "serve"),
    ("net/websocket/connection.rs", "read", "take_messages"),
    ("net/websocket/input.rs", "read", "read"),
    ("net/websocket/stream.rs", "read", QUEUE),
    ("net/websocket/connection.rs", "on_frame", "read"),
    ("net/session/mod.rs", "on_frame", "on_frame"),
    ("protocol/format.rs", "decode", "on_frame"),
    ("protocol/command/mod.rs", "decode_frame", "decode"),
    ("protocol/command/mod.rs", "next", "on_frame"),
    ("protocol/command/mod.rs", "decode", "next"),
    ("protocol/command/envelope.rs", "deserialize", QUEUE),
    ("protocol/command/envelope.rs", "parameters", "read"),
    ("protocol/fields.rs", "payload", QUEUE),
    ("protocol/fields.rs", "fit", "payload"),
    ("json.rs", "check", "fit"),
    ("protocol/fields.rs", "visit_str", QUEUE),
    ("ids.rs", "new", "visit_str"),
    ("net/session/mod.rs", "on_command", "on_frame"),
    ("net/session/limits.rs", "count_command", "on_command"),
    ("net/bucket.rs", "take", "count_command"),
    ("net/session/mod.rs", "dispatch", "on_command"),
    ("net/session/publish.rs", "publish", "dispatch"),
    ("net/session/publish.rs", "publish_draft", "publish"),
    ("net/session/limits.rs", "count_publish", "publish_draft"),
    ("net/rates/mod.rs", "publish", "count_publish"),
    ("net/session/publish.rs", "check_publish", "publish_draft"),
    ("node/clients.rs", "in_channel", "check_publish"),
    ("node/publish.rs", "check_publish", "check_publish"),
    ("node/access.rs", "check_audience", "check_publish"),
    ("net/session/pending.rs", "push", "publish_draft"),
    ("net/session/mod.rs", "end_turn", "serve"),
    ("net/session/publish.rs", "hand_over", "end_turn"),
    ("net/session/publish.rs", "by_lane", "hand_over"),
    ("node/publish.rs", "commit_and_go", "hand_over"),
    ("store/mod.rs", "append_and_go", "commit_and_go"),
    ("store/lane/mod.rs", "submit_and_go", "append_and_go"),
    ("store/lane/group_commit.rs", "submit_and_go", "submit_and_go"),
    ("store/lane/group_commit.rs", "enqueue", "submit_and_go"),
    ("net/readers/mod.rs", "work", "serve"),
    ("node/publish.rs", "lead", QUEUE),
    ("store/mod.rs", "lead", "lead"),
    ("store/lane/mod.rs", "lead", "lead"),
    ("store/lane/group_commit.rs", "lead_on", "lead"),
    ("store/lane/group_commit.rs", "lead", "lead_on"),
    ("store/lane/group_commit.rs", "take_batch", "lead"),
    ("store/lane/mod.rs", "commit", "lead"),
    ("store/lane/writer.rs", "write", "commit"),
    ("store/lane/isolate.rs", "write", "write"),
    ("store/lane/writer.rs", "attempt", "write"),
    ("store/lane/writer.rs", "attempt_once", "attempt"),
    ("store/connection.rs", "begin", "attempt_once"),
    ("store/lane/transaction.rs", "store", "attempt_once"),
    ("store/lane/transaction.rs", "number_rows", "store"),
    ("store/models/message.rs", "new", "number_rows"),
    ("store/lane/sqlite.rs", "insert_messages", "store"),
    ("store/connection.rs", "commit", "attempt_once"),
    ("store/lane/mod.rs", "hand_off", "commit"),
    ("engine/mod.rs", "committed", "hand_off"),
    ("engine/mailboxes.rs", "send", "committed"),
    ("engine/inbox.rs", "send", "send"),
    ("store/lane/group_commit.rs", "pass_on", "lead"),
    ("store/lane/group_commit.rs", "tell", "lead"),
    ("store/lane/group_commit.rs", "hand_over", "tell"),
    ("node/publish.rs", "answered", "hand_over"),
    ("net/session/commits.rs", "acknowledged", "answered"),
    ("net/session/commits.rs", "encode", "acknowledged"),
    ("net/session/commits.rs", "acknowledge", "encode"),
    ("outbox/frame.rs", "add", "acknowledge"),
    ("protocol/format.rs", "write", "add"),
    ("protocol/message.rs", "write_json", "write"),
    ("protocol/reply.rs", "write_json", "write_json"),
    ("outbox/mod.rs", "hold", "acknowledged"),
    ("engine/shard.rs", "turn", QUEUE),
    ("engine/rooms.rs", "apply", "turn_with"),
    ("engine/rooms.rs", "publish", "apply"),
    ("engine/room/state.rs", "publish", "publish"),
    ("engine/room/backlog.rs", "push", "publish"),
    ("engine/room/backlog.rs", "queue_next", "push"),
    ("engine/room/backlog.rs", "queue", "queue_next"),
    ("engine/rooms.rs", "deliver", "turn_with"),
    ("engine/room/sending.rs", "begin_fan_out", "deliver"),
    ("engine/room/state.rs", "choose", "begin_fan_out"),
    ("engine/delivery/choice.rs", "choose", "choose"),
    ("engine/room/backlog.rs", "begin", "begin_fan_out"),
    ("engine/room/backlog.rs", "pack_pending", "begin"),
    ("engine/packing.rs", "pack", "pack_pending"),
    ("engine/packing.rs", "frame_all", "pack"),
    ("protocol/object.rs", "object", "write_json"),
    ("protocol/object.rs", "write_object", "object"),
    ("protocol/push.rs", "write", "write_object"),
    ("outbox/frame.rs", "take", "frame_all"),
    ("outbox/packet.rs", "new", "pack"),
    ("engine/room/fan_out.rs", "new", "begin_fan_out"),
    ("engine/room/sending.rs", "step_fan_out", "step"),
    ("engine/delivery/slice.rs", "fan_out", "step_fan_out"),
    ("engine/delivery/slice.rs", "deliver_to", "fan_out"),
    ("engine/members.rs", "outbox", "deliver_to"),
    ("outbox/mod.rs", "deliver", "deliver_to"),
    ("outbox/mod.rs", "push", "deliver"),
    ("outbox/mod.rs", "send_or_queue", "push"),
    ("outbox/wire.rs", "send", "send_or_queue"),
    ("engine/room/sending.rs", "end_slice", "step_fan_out"),
    ("engine/delivery/pace.rs", "observe", "count_slice"),
];

/// The types that hold the payload of the message on its way, each with its file; a wrapper that adds
/// where it waits or who is answered is not counted.
const FORMS: &[(&str, &str)] = &[
    ("protocol/command/method.rs", "PublishRequest"),
    ("node/publish.rs", "Draft"),
    ("store/message.rs", "NewMessage"),
    ("store/models/message.rs", "MessageRow"),
    ("publication.rs", "Publication"),
    ("outbox/frame.rs", "Frames"),
    ("outbox/packet.rs", "Packet"),
];

/// How many files a publish enters and how many forms it takes, the text before and the frame after included.
pub fn lengths() -> (usize, usize) {
    let files: BTreeSet<_> = WAY.iter().map(|(file, ..)| file).collect();
    (files.len(), FORMS.len() + 2)
}

#[test]
fn a_publish_goes_the_way_that_is_written_down() {
    let house = House::of(&sources(root(), "src"));
    assert_none(&house.complaints());
}

/// What each function and type of the crate is called, and which names its body holds.
#[derive(Default)]
struct House {
    file: String,
    functions: BTreeMap<(String, String), BTreeSet<String>>,
    types: BTreeSet<(String, String)>,
}

impl House {
    fn of(sources: &[Source]) -> Self {
        let mut house = Self::default();
        for source in sources {
            house.file = source.path.strip_prefix("src").unwrap().display().to_string();
            house.visit_file(&source.production());
        }
        house
    }

    fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        for (index, (file, function, caller)) in WAY.iter().enumerate() {
            if !self.functions.contains_key(&((*file).to_owned(), (*function).to_owned())) {
                complaints.push(format!("{file} has no function {function}"));
            }
            let is_called =
                *caller == QUEUE || self.bodies(index, caller).any(|body| body.contains(*function));
            if !is_called {
                complaints.push(format!("{file}: {function} is not called by a {caller} before it"));
            }
        }
        let is_missing =
            |(file, name): &&(&str, &str)| !self.types.contains(&((*file).to_owned(), (*name).to_owned()));
        complaints
            .extend(FORMS.iter().filter(is_missing).map(|(file, name)| format!("{file} has no {name}")));
        complaints
    }

    /// The bodies of the functions of this name in the files that were entered before a step.
    fn bodies(&self, step: usize, name: &str) -> impl Iterator<Item = &BTreeSet<String>> {
        let entered: BTreeSet<_> = WAY[..=step].iter().map(|(file, ..)| *file).collect();
        let of_name = move |((file, function), _): &(&(String, String), &BTreeSet<String>)| {
            function == name && entered.contains(file.as_str())
        };
        self.functions.iter().filter(of_name).map(|(_, body)| body)
    }

    fn function(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let mut names = Names::default();
        names.visit_block(body);
        let key = (self.file.clone(), signature.ident.to_string());
        self.functions.entry(key).or_default().extend(names.0);
    }
}

impl<'ast> Visit<'ast> for House {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.types.insert((self.file.clone(), item.ident.to_string()));
    }
}

/// Every name in a piece of code, those in macro calls included.
#[derive(Default)]
struct Names(BTreeSet<String>);

impl<'ast> Visit<'ast> for Names {
    fn visit_ident(&mut self, name: &'ast proc_macro2::Ident) {
        self.0.insert(name.to_string());
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        for token in flat(call.tokens.clone()) {
            if let TokenTree::Ident(name) = token {
                self.0.insert(name.to_string());
            }
        }
    }
}
