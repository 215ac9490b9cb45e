//! Many messages, few commits.

on_both_databases! {
    /// Everything that waits in the socket is committed together.
    a_thousand_publishes_in_one_frame(server) {
        let (mut ann, mut bob) = (server.connect("ann"), server.connect("bob"));
        bob.join("room");
        ann.publish_numbers("room", 1..=1000);
        bob.expect_numbers(1..=1000);
        let (messages, commits) = (server.metric("commit_batch_rows_sum"), server.metric("commit_batch_rows_count"));
        assert_eq!(messages, 1000);
        assert!(commits <= 20, "{commits} commits");
    }
}

on_both_databases! {
    a_commit_spans_rooms_and_keeps_the_order_of_each(server) {
        let (mut ann, mut bob) = (server.connect("ann"), server.connect("bob"));
        let rooms: Vec<_> = (0..10).map(|number| format!("room{number}")).collect();
        let commands: Vec<_> = (0..500u64).map(|number| {
            let room = &rooms[number as usize % 10];
            ann.with_id(&format!(r#"{{"publish":{{"channel":"{room}","data":{}}}}}"#, number / 10 + 1))
        }).collect();
        for room in &rooms {
            bob.join(room);
        }
        ann.send(&commands.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join("\n"));
        for (id, _) in commands {
            assert_eq!(ann.reply_to(id), r#"{"publish":{}}"#);
        }
        let mut heads = std::collections::BTreeMap::new();
        for _ in 0..500 {
            let push: serde_json::Value = serde_json::from_str(&bob.next_push()).unwrap();
            let publication = &push["push"]["pub"];
            let head = heads.entry(push["push"]["channel"].to_string()).or_insert(0);
            *head += 1;
            assert_eq!((&publication["offset"], &publication["data"]), (&(*head).into(), &(*head).into()));
        }
        assert!(server.metric("commit_batch_rows_count") <= 40);
    }
}

on_both_databases! {
    /// Many writers to one room at once: one order for all, no number twice, none missing.
    concurrent_writers_share_one_order(server) {
        let (mut one, mut other) = (server.connect("one"), server.connect("other"));
        one.join("room");
        other.join("room");
        let server = &server;
        std::thread::scope(|scope| {
            for writer in 0..6 {
                scope.spawn(move || server.connect(&format!("writer{writer}")).publish_numbers("room", 1..=100));
            }
        });
        let mut latest = std::collections::BTreeMap::new();
        for offset in 1..=600u64 {
            let push = one.next_push();
            assert_eq!(other.next_push(), push);
            let push: serde_json::Value = serde_json::from_str(&push).unwrap();
            let publication = &push["push"]["pub"];
            assert_eq!(publication["offset"], offset);
            let last = latest.insert(publication["info"]["user"].to_string(), publication["data"].as_u64().unwrap());
            assert_eq!(publication["data"], last.unwrap_or(0) + 1, "in the order its writer sent it");
        }
    }
}
