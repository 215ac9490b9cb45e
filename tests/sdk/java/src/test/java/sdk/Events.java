package sdk;

import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** Events of one kind, in order, to wait for. */
final class Events<T> {
    /** Longest wait for anything; only a broken server makes one wait for so long. */
    static final int DEADLINE_S = 30;

    private final BlockingQueue<T> queue = new LinkedBlockingQueue<>();
    private final String kind;

    Events(String kind) {
        this.kind = kind;
    }

    void note(T event) {
        queue.add(event);
    }

    int waiting() {
        return queue.size();
    }

    T next() {
        try {
            T event = queue.poll(DEADLINE_S, TimeUnit.SECONDS);
            if (event == null) {
                throw new AssertionError("waited too long for: " + kind);
            }
            return event;
        } catch (InterruptedException error) {
            throw new IllegalStateException(error);
        }
    }
}
