package sdk;

import io.github.centrifugal.centrifuge.Client;
import io.github.centrifugal.centrifuge.ConnectedEvent;
import io.github.centrifugal.centrifuge.ConnectingEvent;
import io.github.centrifugal.centrifuge.ConnectionTokenEvent;
import io.github.centrifugal.centrifuge.ConnectionTokenGetter;
import io.github.centrifugal.centrifuge.DisconnectedEvent;
import io.github.centrifugal.centrifuge.DuplicateSubscriptionException;
import io.github.centrifugal.centrifuge.ErrorEvent;
import io.github.centrifugal.centrifuge.EventListener;
import io.github.centrifugal.centrifuge.JoinEvent;
import io.github.centrifugal.centrifuge.LeaveEvent;
import io.github.centrifugal.centrifuge.Options;
import io.github.centrifugal.centrifuge.PublicationEvent;
import io.github.centrifugal.centrifuge.ResultCallback;
import io.github.centrifugal.centrifuge.ServerPublicationEvent;
import io.github.centrifugal.centrifuge.SubscribedEvent;
import io.github.centrifugal.centrifuge.SubscribingEvent;
import io.github.centrifugal.centrifuge.Subscription;
import io.github.centrifugal.centrifuge.SubscriptionErrorEvent;
import io.github.centrifugal.centrifuge.SubscriptionEventListener;
import io.github.centrifugal.centrifuge.SubscriptionOptions;
import io.github.centrifugal.centrifuge.TokenCallback;
import io.github.centrifugal.centrifuge.UnsubscribedEvent;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.Consumer;
import java.util.function.Supplier;

/** A client of the SDK, and what happened to it. */
final class Peer extends EventListener implements AutoCloseable {
    final Events<ConnectedEvent> connected = new Events<>("connected");
    final Events<ConnectingEvent> connecting = new Events<>("connecting");
    final Events<DisconnectedEvent> disconnected = new Events<>("disconnected");
    final Events<ErrorEvent> errors = new Events<>("error");
    final Events<ServerPublicationEvent> publications = new Events<>("publication of a server-side subscription");
    final Client client;

    private Peer(String url, Options options) {
        options.setMinReconnectDelay(20);
        options.setMaxReconnectDelay(200);
        client = new Client(url, options, this);
        client.connect();
    }

    /** A client with a token that is not yet let in. */
    static Peer start(String url, String token) {
        Options options = new Options();
        options.setToken(token);
        return new Peer(url, options);
    }

    /** A client that was let in. */
    static Peer connect(String url, String token) {
        Peer peer = start(url, token);
        peer.connected.next();
        return peer;
    }

    /** A client that fetches its tokens, and was let in. */
    static Peer connect(String url, Supplier<String> tokens) {
        Options options = new Options();
        options.setTokenGetter(new ConnectionTokenGetter() {
            @Override
            public void getConnectionToken(ConnectionTokenEvent event, TokenCallback callback) {
                callback.Done(null, tokens.get());
            }
        });
        Peer peer = new Peer(url, options);
        peer.connected.next();
        return peer;
    }

    /** A subscription that is asked for. */
    Seat seat(String channel, SubscriptionOptions options) {
        Seat seat = new Seat();
        options.setMinResubscribeDelay(20);
        try {
            seat.subscription = client.newSubscription(channel, options, seat);
        } catch (DuplicateSubscriptionException error) {
            throw new IllegalStateException(error);
        }
        seat.subscription.subscribe();
        return seat;
    }

    /** A subscription that stands. */
    Seat subscribe(String channel, SubscriptionOptions options) {
        Seat seat = seat(channel, options);
        seat.subscribed.next();
        return seat;
    }

    Seat subscribe(String channel) {
        return subscribe(channel, new SubscriptionOptions());
    }

    /** True when the client never had to connect again, and nothing went wrong. */
    boolean stayed() {
        return connecting.waiting() == 1 && errors.waiting() == 0;
    }

    /** What a call with a callback gives. */
    static <T> T result(Consumer<ResultCallback<T>> call) throws Throwable {
        CompletableFuture<T> result = new CompletableFuture<>();
        call.accept((error, value) -> {
            if (error != null) {
                result.completeExceptionally(error);
            } else {
                result.complete(value);
            }
        });
        try {
            return result.get(Events.DEADLINE_S, TimeUnit.SECONDS);
        } catch (ExecutionException error) {
            throw error.getCause();
        } catch (TimeoutException error) {
            throw new AssertionError("a call was never answered", error);
        }
    }

    @Override
    public void onConnecting(Client client, ConnectingEvent event) {
        connecting.note(event);
    }

    @Override
    public void onConnected(Client client, ConnectedEvent event) {
        connected.note(event);
    }

    @Override
    public void onDisconnected(Client client, DisconnectedEvent event) {
        disconnected.note(event);
    }

    @Override
    public void onError(Client client, ErrorEvent event) {
        errors.note(event);
    }

    @Override
    public void onPublication(Client client, ServerPublicationEvent event) {
        publications.note(event);
    }

    @Override
    public void close() throws InterruptedException {
        client.close(Events.DEADLINE_S * 1000);
    }

    /** A subscription, and what happened to it. */
    static final class Seat extends SubscriptionEventListener {
        final Events<SubscribedEvent> subscribed = new Events<>("subscribed");
        final Events<SubscribingEvent> subscribing = new Events<>("subscribing");
        final Events<UnsubscribedEvent> unsubscribed = new Events<>("unsubscribed");
        final Events<PublicationEvent> publications = new Events<>("publication");
        final Events<JoinEvent> joins = new Events<>("join");
        final Events<LeaveEvent> leaves = new Events<>("leave");
        final Events<SubscriptionErrorEvent> errors = new Events<>("error of a subscription");
        Subscription subscription;

        @Override
        public void onSubscribed(Subscription sub, SubscribedEvent event) {
            subscribed.note(event);
        }

        @Override
        public void onSubscribing(Subscription sub, SubscribingEvent event) {
            subscribing.note(event);
        }

        @Override
        public void onUnsubscribed(Subscription sub, UnsubscribedEvent event) {
            unsubscribed.note(event);
        }

        @Override
        public void onPublication(Subscription sub, PublicationEvent event) {
            publications.note(event);
        }

        @Override
        public void onJoin(Subscription sub, JoinEvent event) {
            joins.note(event);
        }

        @Override
        public void onLeave(Subscription sub, LeaveEvent event) {
            leaves.note(event);
        }

        @Override
        public void onError(Subscription sub, SubscriptionErrorEvent event) {
            errors.note(event);
        }
    }
}
