//! The log goes back behind messages that were delivered: an older copy took over for the database.

use super::turns::Still;
use super::*;

/// Puts the log of a room back and commits other messages under numbers that were given before.
fn fork(rig: &Rig, room: &Channel, back_to: usize, count: usize) {
    rig.log.go_back(room, back_to);
    rig.publish_padded(room, count, 100);
}

/// Waits until rooms go on under another epoch, which it gives.
fn await_epoch(rig: &Rig, room: &Channel, other_than: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let epoch = join(rig, room).epoch.to_string();
        if epoch != other_than {
            return epoch;
        }
        assert!(Instant::now() < deadline, "the history has the same name for ever");
    }
}

/// The answer to a subscribe that names no position; the subscription ends at once.
fn join(rig: &Rig, room: &Channel) -> Joined {
    let remote = Remote::new(rig.drainer.as_ref().unwrap());
    let (sender, answer) = bounded(1);
    rig.engine.join(&remote.listener, remote.request(room, Answer::Collect(sender)), 1).unwrap();
    let joined = answer.recv_timeout(Duration::from_secs(60)).expect("a join is always answered").1;
    rig.engine.disconnect(&remote.listener);
    joined.expect("the log can be read")
}

/// The numbers of new messages are those of old ones, and nobody may take the ones for the others.
#[test]
fn a_number_that_is_given_twice_ends_every_subscription() {
    let rig = Rig::new(|config| config.workers = 2);
    let (room, bystanders) = (channel("room"), channel("bystanders"));
    rig.publish(&room, 10);
    rig.publish(&bystanders, 1);
    let mut ear = rig.listen(&room, Some(0)).unwrap();
    ear.hear_until(10);
    let bystander = rig.listen(&bystanders, Some(1)).unwrap();
    let mut client = Remote::new(rig.drainer.as_ref().unwrap());
    let request = client.request(&room, Answer::Reply(1));
    rig.engine.join(&client.listener, request, 1).unwrap();
    assert_eq!(client.listener.outbox.uncork(&frame::text(b"hello")), crate::outbox::Push::Accepted);

    fork(&rig, &room, 7, 1);
    ear.hear_end();
    bystander.hear_end();
    assert!(client.read_until(r#""code":2500"#).contains("hello"), "a client is told to subscribe again");

    for after in [8, 10] {
        assert_eq!(rig.listen(&room, Some(after)).err(), Some(ErrorCode::UnrecoverablePosition), "{after}");
    }
    let epoch = await_epoch(&rig, &room, "epoch");
    assert_eq!(rig.listen(&room, Some(8)).err(), Some(ErrorCode::UnrecoverablePosition));
    let mut ear = rig.listen_in(&epoch, &room, Some(5)).unwrap();
    ear.hear_until(8);
    rig.publish(&room, 4);
    ear.hear_until(12);
    assert_eq!(rig.log.renewals.load(Ordering::SeqCst), 1, "one fork has one name");
}

/// Blocks of pages that were read before are those of the history that is lost.
#[test]
fn pages_are_read_anew_after_a_fork() {
    let rig = Rig::new(|config| config.workers = 1);
    let room = channel("room");
    rig.publish_padded(&room, 400, 1000);
    let mut ear = rig.listen(&room, Some(0)).unwrap();
    ear.hear_until(400);
    fork(&rig, &room, 100, 300);
    ear.hear_end();
    let epoch = await_epoch(&rig, &room, "epoch");
    let mut ear = rig.listen_in(&epoch, &room, Some(50)).unwrap();
    ear.hear_until(400);
}

/// While the log cannot be changed, nobody is recovered by what is not known to be true.
#[test]
fn nobody_recovers_until_the_history_has_another_name() {
    let rig = Rig::new(|config| config.workers = 1);
    let room = channel("room");
    rig.publish(&room, 10);
    let mut ear = rig.listen(&room, Some(0)).unwrap();
    ear.hear_until(10);
    rig.log.fail_renewals.store(true, Ordering::SeqCst);
    fork(&rig, &room, 5, 1);
    ear.hear_end();
    assert_eq!(rig.listen(&room, Some(3)).err(), Some(ErrorCode::UnrecoverablePosition));
    let ear = rig.listen(&room, None).unwrap();
    rig.log.fail_renewals.store(false, Ordering::SeqCst);
    ear.hear_end();
    let epoch = await_epoch(&rig, &room, "epoch");
    rig.listen_in(&epoch, &room, Some(3)).unwrap().hear_until(6);
}

/// A commit that was read from the log before it was handed over is known already. One that began after the head
/// was read and has no higher number is a fork.
#[test]
fn a_commit_that_was_read_first_is_no_fork() {
    let rig = Rig::new(|config| config.workers = 1);
    let room = channel("room");
    let begun = Instant::now();
    let early: Vec<_> = (1..=5).map(|seq| varied(&room, seq, 0)).collect();
    rig.log.rooms.lock().unwrap().insert(room.clone(), early.clone());
    let hand_over = |batch: &[Publication], begun| {
        if let Some(deliver) = rig.engine.committed(batch.to_vec(), begun) {
            deliver();
        }
    };
    let mut ear = rig.listen(&room, None).unwrap();
    assert_eq!(ear.position, 5, "the head was read");
    hand_over(&early[3..], begun);
    rig.publish(&room, 1);
    ear.hear_until(6);
    assert_eq!(rig.log.renewals.load(Ordering::SeqCst), 0);
    hand_over(&early[4..], Instant::now());
    ear.hear_end();
}

/// A client that knows more than the room waits for what the log has.
#[test]
fn a_position_ahead_of_memory_is_asked_for() {
    let rig = Rig::new(|config| config.workers = 1);
    let room = channel("room");
    rig.publish(&room, 3);
    let mut ear = rig.listen(&room, Some(3)).unwrap();
    // Committed, and the hand-off was lost.
    rig.log.rooms.lock().unwrap().get_mut(&room).unwrap().push(varied(&room, 4, 0));
    let mut ahead = rig.listen(&room, Some(4)).unwrap();
    ear.hear_until(4);
    rig.publish(&room, 1);
    ear.hear_until(5);
    ahead.hear_until(5);
    assert_eq!(rig.listen(&room, Some(6)).err(), Some(ErrorCode::UnrecoverablePosition), "nobody has it");
    assert_eq!(rig.log.renewals.load(Ordering::SeqCst), 0);
    // The log has less than the room: whoever asks finds the fork.
    rig.log.go_back(&room, 2);
    assert!(rig.listen(&room, Some(6)).is_err());
    ear.hear_end();
    ahead.hear_end();
    await_epoch(&rig, &room, "epoch");
}

/// A sender that was told its number, and comes back before others were given the message.
#[test]
fn a_position_that_was_only_acknowledged_is_recovered() {
    let still = Still::new();
    let room = channel("room");
    still.force(&room, Strategy::Worker);
    let crowd = still.fill(&room, 1);
    assert!(!still.commit(&[&room]), "the worker delivers");
    let (sender, answer) = bounded(1);
    let listener = still.listener();
    let recover = Recover { after: 1, epoch: "epoch".into(), permitted: true, reject_unrecovered: true };
    let request = JoinRequest {
        channel: room.clone(),
        info: listener.info.clone(),
        recover: Some(recover),
        extra: Extra::default(),
        answer: Answer::Collect(sender),
        server_side: false,
    };
    still.engine.join(&listener, request, 1).unwrap();
    still.flush();
    let joined = answer.try_recv().unwrap().1.expect("it is no position that is lost");
    assert!(joined.recovered && joined.publications.is_empty());
    assert_eq!(joined.offset, 1);
    assert_eq!((crowd[0].outbox.queued_bytes() > 0, listener.outbox.queued_bytes()), (true, 0));
    still.stop();
}
