//! What a server did to its files and told its clients, read from the record of strace.

use std::collections::HashMap;
use std::path::Path;

/// One thing that happened, in the order of the kernel.
#[derive(Debug)]
pub(super) enum Event {
    Changed(Change),
    /// A sync has ended; it covers the changes of its file, or the removals in its folder, that were there when it began.
    Synced {
        name: String,
        changes_before: usize,
    },
    /// Bytes were handed to a socket.
    Sent(Vec<u8>),
    /// The mark beside the database was replaced by one with these bytes, which are never synced.
    Marked(Vec<u8>),
}

/// A change of a file, known by the name it has in the database's folder.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) name: String,
    pub(super) what: What,
}

#[derive(Debug, Clone)]
pub(super) enum What {
    Write { offset: usize, data: Vec<u8> },
    Truncate { size: usize },
    Remove,
}

/// A system call whose end is not noted yet.
struct Begun {
    call: String,
    changes_before: usize,
}

/// The name of the database's folder itself, which is synced when files come and go.
pub(super) const FOLDER: &str = "";

/// What a mark is written to before it gets its name.
const MARK_DRAFT: &str = "chat.db-mark.new";

/// Reads the record; files outside `folder` are left out, and so is the index of the log, which is memory that the
/// processes of a database share and is made anew after a power cut.
pub(super) fn read(record: &Path, folder: &Path) -> Vec<Event> {
    let text = std::fs::read_to_string(record).unwrap();
    let mut reader = Reader {
        folder: folder.to_str().unwrap(),
        events: Vec::new(),
        changes: 0,
        begun: HashMap::new(),
        mark: Vec::new(),
    };
    text.lines().for_each(|line| reader.line(line));
    reader.events
}

struct Reader<'a> {
    folder: &'a str,
    events: Vec<Event>,
    changes: usize,
    begun: HashMap<&'a str, Begun>,
    /// The draft of the next mark.
    mark: Vec<u8>,
}

impl<'a> Reader<'a> {
    fn line(&mut self, line: &'a str) {
        let Some((thread, rest)) = line.split_once(' ') else { return };
        let rest = rest.trim_start();
        if let Some(call) = rest.strip_suffix("<unfinished ...>") {
            self.begin(call);
            let begun = Begun { call: call.trim_end().to_owned(), changes_before: self.changes };
            self.begun.insert(thread, begun);
        } else if let Some((_, end)) = rest.split_once(" resumed>").filter(|_| rest.starts_with("<...")) {
            let begun = self.begun.remove(thread).expect("a call that began");
            self.end(&(begun.call + end), begun.changes_before);
        } else if rest.contains('(') {
            self.begin(rest);
            self.end(rest, self.changes);
        }
    }

    /// An answer counts from the moment it is given away.
    fn begin(&mut self, call: &str) {
        if call.starts_with("sendto(") || call.starts_with("sendmsg(") {
            self.events.push(Event::Sent(strings(call).concat()));
        }
    }

    /// A change counts from the moment it is complete: no sync before covers it.
    fn end(&mut self, call: &str, changes_before: usize) {
        let Some((name, arguments)) = call.split_once('(') else { return };
        let Some((arguments, result)) = arguments.rsplit_once(" = ") else { return };
        let Ok(result) = result.split(' ').next().unwrap().parse::<usize>() else { return };
        let numbers: Vec<usize> = arguments
            .trim_end()
            .trim_end_matches(')')
            .split(", ")
            .filter_map(|argument| argument.parse().ok())
            .collect();
        match name {
            "fsync" | "fdatasync" => {
                if let Some(name) = self.opened(arguments) {
                    self.events.push(Event::Synced { name, changes_before });
                }
            }
            "pwrite64" => {
                let mut data = strings(arguments).concat();
                data.truncate(result);
                self.change(self.opened(arguments), What::Write { offset: numbers[1], data });
            }
            "ftruncate" => self.change(self.opened(arguments), What::Truncate { size: numbers[0] }),
            "unlink" | "unlinkat" => {
                let path = strings(arguments).pop().unwrap();
                self.change(self.named(std::str::from_utf8(&path).unwrap()), What::Remove);
            }
            "write" if self.path(arguments).is_some_and(|path| path.ends_with(MARK_DRAFT)) => {
                self.mark = strings(arguments).concat();
            }
            "rename" => {
                let paths = strings(arguments);
                assert!(paths[0].ends_with(MARK_DRAFT.as_bytes()), "the disk does not know {name}");
                self.events.push(Event::Marked(std::mem::take(&mut self.mark)));
            }
            "write" => assert_eq!(self.opened(arguments), None, "the disk does not know {name}"),
            _ => {}
        }
    }

    fn change(&mut self, name: Option<String>, what: What) {
        if let Some(name) = name {
            self.events.push(Event::Changed(Change { name, what }));
            self.changes += 1;
        }
    }

    /// The file that the first argument, a descriptor with its path, stands for.
    fn opened(&self, arguments: &str) -> Option<String> {
        self.named(&self.path(arguments)?)
    }

    fn path(&self, arguments: &str) -> Option<String> {
        let (_, path) = arguments.split_once('<')?;
        String::from_utf8(unescape(path.split_once('>')?.0)).ok()
    }

    fn named(&self, path: &str) -> Option<String> {
        let name = path.strip_prefix(self.folder)?.trim_start_matches('/');
        // Marks are events of their own.
        let is_lasting = !["-shm", "-lock"].iter().any(|end| name.ends_with(end)) && !name.contains("-mark");
        let of_database = name == FOLDER || (name.starts_with("chat.db") && is_lasting);
        of_database.then(|| name.to_owned())
    }
}

/// The strings among the arguments.
fn strings(arguments: &str) -> Vec<Vec<u8>> {
    arguments.split('"').skip(1).step_by(2).map(unescape).collect()
}

/// The bytes of `\x0a\x2f`.
fn unescape(text: &str) -> Vec<u8> {
    text.split("\\x").skip(1).map(|byte| u8::from_str_radix(&byte[..2], 16).unwrap()).collect()
}
