package sdk;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.github.centrifugal.centrifuge.HistoryOptions;
import io.github.centrifugal.centrifuge.HistoryResult;
import io.github.centrifugal.centrifuge.PresenceResult;
import io.github.centrifugal.centrifuge.PresenceStatsResult;
import io.github.centrifugal.centrifuge.PublicationEvent;
import io.github.centrifugal.centrifuge.PublishResult;
import io.github.centrifugal.centrifuge.RPCResult;
import io.github.centrifugal.centrifuge.ReplyError;
import io.github.centrifugal.centrifuge.StreamPosition;
import io.github.centrifugal.centrifuge.SubscribedEvent;
import io.github.centrifugal.centrifuge.SubscriptionOptions;
import io.github.centrifugal.centrifuge.SubscriptionTokenEvent;
import io.github.centrifugal.centrifuge.SubscriptionTokenGetter;
import io.github.centrifugal.centrifuge.TokenCallback;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;

/** The server as an Android or Java application sees it. Each test has rooms and users of its own. */
class SdkTest {
    private static final byte[] HELLO = "{\"input\": \"x\", \"text\":\"é\"}".getBytes(UTF_8);

    private static void publish(Peer.Seat room, byte[] data) throws Throwable {
        Peer.<PublishResult>result(callback -> room.subscription.publish(data, callback));
    }

    /** Gives two tokens that expire soon, then one that does not. */
    private static final class Tokens {
        final Events<Integer> lasting = new Events<>("the third token");
        private final AtomicInteger asked = new AtomicInteger();

        String next(String options) {
            boolean last = asked.incrementAndGet() == 3;
            if (last) {
                lasting.note(3);
            }
            return Stage.token(options + "&seconds=" + (last ? 3600 : 2));
        }
    }

    @Test
    void aTokenIsRefreshedBeforeItExpires() throws Throwable {
        Tokens tokens = new Tokens();
        try (Peer ann = Peer.connect(Stage.URL, () -> tokens.next("user=java-ann"))) {
            Peer.Seat room = ann.subscribe("java-refresh");
            tokens.lasting.next();
            publish(room, HELLO);
            assertEquals("java-ann", room.publications.next().getInfo().getUser());
            assertTrue(ann.stayed());
        }
    }

    @Test
    void aSubscriptionTokenIsRefreshedBeforeItExpires() throws Throwable {
        Tokens tokens = new Tokens();
        SubscriptionOptions options = new SubscriptionOptions();
        options.setTokenGetter(new SubscriptionTokenGetter() {
            @Override
            public void getSubscriptionToken(SubscriptionTokenEvent event, TokenCallback callback) {
                callback.Done(null, tokens.next("user=java-bob&channel=" + event.getChannel()));
            }
        });
        try (Peer bob = Peer.connect(Stage.URL, Stage.token("user=java-bob"))) {
            Peer.Seat room = bob.subscribe("$java-private", options);
            tokens.lasting.next();
            publish(room, HELLO);
            room.publications.next();
            assertEquals(0, room.errors.waiting());
            assertEquals(1, room.subscribing.waiting());
            assertEquals(103, bob.seat("$java-other", new SubscriptionOptions()).unsubscribed.next().getCode());
        }
    }

    @Test
    void whoHasNoGoodTokenIsTurnedAwayForGood() throws Throwable {
        for (Map.Entry<String, Integer> bad : Map.of("no token at all", 3500, "", 3501).entrySet()) {
            try (Peer stranger = Peer.start(Stage.URL, bad.getKey())) {
                assertEquals(bad.getValue(), stranger.disconnected.next().getCode());
            }
        }
    }

    @Test
    void messagesHistoryAndPresence() throws Throwable {
        try (Peer ann = Peer.connect(Stage.URL, Stage.token("user=java-cid"));
                Peer bob = Peer.connect(Stage.URL, Stage.token("user=java-dan"))) {
            Peer.Seat room = ann.subscribe("java-talk");
            Peer.Seat other = bob.subscribe("java-talk");
            while (!room.joins.next().getInfo().getUser().equals("java-dan")) {}
            for (int n = 1; n <= 3; n++) {
                publish(room, HELLO);
                for (Peer.Seat listener : new Peer.Seat[] {room, other}) {
                    PublicationEvent got = listener.publications.next();
                    assertArrayEquals(HELLO, got.getData());
                    assertEquals(n, got.getOffset());
                    assertEquals("java-cid", got.getInfo().getUser());
                }
            }
            HistoryResult newest = history(room, new HistoryOptions.Builder().withLimit(2).withReverse(true));
            assertEquals(3, newest.getOffset());
            assertEquals(3, newest.getPublications().get(0).getOffset());
            assertArrayEquals(HELLO, newest.getPublications().get(1).getData());
            StreamPosition first = new StreamPosition(1, newest.getEpoch());
            assertEquals(2, history(room, new HistoryOptions.Builder().withLimit(10).withSince(first)).getPublications().size());
            PresenceResult presence = Peer.result(room.subscription::presence);
            assertEquals(2, presence.getClients().size());
            PresenceStatsResult counts = Peer.result(room.subscription::presenceStats);
            assertEquals(2, counts.getNumClients());
            assertEquals(2, counts.getNumUsers());
            other.subscription.unsubscribe();
            assertEquals("java-dan", room.leaves.next().getInfo().getUser());
        }
    }

    private static HistoryResult history(Peer.Seat room, HistoryOptions.Builder options) throws Throwable {
        return Peer.result(callback -> room.subscription.history(options.build(), callback));
    }

    /** 1000 messages are more than a reply has: the rest comes as pushes. */
    @Test
    void aClientCutOffGetsWhatItMissedInOrder() throws Throwable {
        String gate = Stage.gate();
        try (Peer ann = Peer.connect(gate, Stage.token("user=java-eve&channels=java-granted"))) {
            Peer.Seat room = ann.subscribe("java-missed");
            Stage.post("/publish?channel=java-missed&from=1&to=5");
            for (int n = 1; n <= 5; n++) {
                room.publications.next();
            }
            ann.connecting.next();
            Stage.post("/shut?gate=" + gate);
            ann.connecting.next();
            Stage.post("/publish?channel=java-missed&from=6&to=1000");
            Stage.post("/publish?channel=java-granted&from=1&to=20");
            Stage.post("/open?gate=" + gate);
            SubscribedEvent again = room.subscribed.next();
            assertTrue(again.wasRecovering() && again.getRecovered());
            for (int n = 6; n <= 1000; n++) {
                PublicationEvent got = room.publications.next();
                assertEquals(n, got.getOffset());
                assertEquals(Integer.toString(n), new String(got.getData(), UTF_8));
            }
            for (int n = 1; n <= 20; n++) {
                assertEquals(n, ann.publications.next().getOffset());
            }
        }
    }

    @Test
    void anOperatorUnsubscribesAndDisconnects() throws Throwable {
        try (Peer ann = Peer.connect(Stage.URL, Stage.token("user=java-fay"))) {
            Peer.Seat room = ann.subscribe("java-ended");
            Stage.api("unsubscribe", "{\"user\":\"java-fay\",\"channel\":\"java-ended\"}");
            assertEquals(2000, room.unsubscribed.next().getCode());
            ann.connecting.next();
            Stage.api("disconnect", "{\"user\":\"java-fay\",\"disconnect\":{\"code\":3000,\"reason\":\"come back\"}}");
            assertEquals(3000, ann.connecting.next().getCode());
            ann.connected.next();
            Stage.api("disconnect", "{\"user\":\"java-fay\"}");
            assertEquals(3503, ann.disconnected.next().getCode());
        }
    }

    @Test
    void callsAndTheirErrors() throws Throwable {
        try (Peer ann = Peer.connect(Stage.URL, Stage.token("user=java-gus"))) {
            Peer.Seat room = ann.subscribe("java-calls");
            byte[] call = "{\"channel\":\"java-calls\",\"data\":1,\"key\":\"k\"}".getBytes(UTF_8);
            for (int n = 0; n < 2; n++) {
                RPCResult done = Peer.result(callback -> ann.client.rpc("publish", call, callback));
                assertTrue(new String(done.getData(), UTF_8).startsWith("{\"offset\":1,"));
            }
            room.publications.next();
            ReplyError unknown = assertThrows(ReplyError.class, () ->
                    Peer.<RPCResult>result(callback -> ann.client.rpc("nobody.knows", HELLO, callback)));
            assertEquals(108, unknown.getCode());
            ReplyError nowhere = assertThrows(ReplyError.class, () ->
                    Peer.<PublishResult>result(callback -> ann.client.publish("nowhere:at-all", HELLO, callback)));
            assertEquals(102, nowhere.getCode());
            assertTrue(ann.stayed());
        }
    }

    @Test
    void bytesThatAreNoJsonComeBackWhereTheNamespaceAllowsThem() throws Throwable {
        byte[] data = {0, 1, (byte) 0xff, '\n', '{', (byte) 0x80};
        try (Peer ann = Peer.connect(Stage.URL, Stage.token("user=java-hal"))) {
            Peer.Seat room = ann.subscribe("raw:java");
            publish(room, data);
            assertArrayEquals(data, room.publications.next().getData());
            HistoryResult page = history(room, new HistoryOptions.Builder().withLimit(1));
            assertArrayEquals(data, page.getPublications().get(0).getData());
            Peer.Seat other = ann.subscribe("java-raw");
            ReplyError elsewhere = assertThrows(ReplyError.class, () -> publish(other, data));
            assertEquals(107, elsewhere.getCode());
        }
    }
}
