//! The SQL in `docs/schema.md` runs.

use crate::Check;
use crate::vocabulary::*;

pub(crate) const CHECKS: &[Check] = &[("the example queries of the documentation run", examples_run)];

/// Every block marked `sql` is one query for both databases.
fn examples_run(backend: &Backend) {
    let store = backend.open();
    store.add_contact("ann", "bob").unwrap();
    append(&store, message_of("ann", "lobby", r#"{"text":"hello"}"#)).unwrap();
    store.set_last_read(&channel("lobby"), "bob", 1).unwrap();
    let page = include_str!("../../docs/schema.md");
    let examples: Vec<&str> =
        page.split("```sql\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(examples.len() >= 5, "the page has examples");
    for example in examples {
        let query = example.trim().trim_end_matches(';');
        let rows = backend.number(&format!("SELECT count(*) FROM ({query}) AS example"));
        assert!(rows > 0, "finds nothing: {query}");
    }
}
