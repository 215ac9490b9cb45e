//! An outbox over a wire in memory, for models of those who use outboxes.

use super::*;

/// Room for more than one small frame.
const BUDGET: usize = 12;

/// An outbox, the far end of its wire, and a drainer of its own.
pub(crate) struct InMemory {
    pub(crate) outbox: Arc<Outbox>,
    wire: Wire,
    drainer: DrainerHandle,
    drainer_thread: thread::JoinHandle<()>,
}

impl InMemory {
    /// An outbox of this connection, with the drainer's loop running.
    pub(crate) fn new(id: ConnectionId, reader: Arc<dyn Reader>) -> Self {
        let (sender, _) = unbounded();
        let worker =
            Worker::new(Duration::from_secs(3600), sender, METRICS.clone()).expect("no system is asked");
        let (drainer, wire) = (worker.handle.clone(), Wire::in_memory());
        let outbox = Outbox::new(
            (id, Format::Json),
            Peer::Socket(wire.clone()),
            BUDGET,
            drainer.clone(),
            Some(reader),
        );
        let drainer_thread = thread::spawn(move || worker.run());
        Self { outbox, wire, drainer, drainer_thread }
    }

    /// Starts a peer that reads to the end, a few bytes at a time.
    pub(crate) fn read_to_end(&self) -> thread::JoinHandle<()> {
        let wire = self.wire.clone();
        thread::spawn(move || while wire.read(3).is_some() {})
    }

    /// Ends the drainer and looks whether anything is left of the outbox.
    pub(crate) fn finish(self) {
        self.drainer.ask_to_stop().expect("the wire cannot fail");
        self.drainer_thread.join().expect("the drainer failed");
        assert_eq!(self.outbox.queued_bytes(), 0);
        assert!(self.drainer.blocked().is_empty() && !self.wire.is_registered(), "it is still watched");
    }
}
