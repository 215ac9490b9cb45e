package sdk

// What the tests share: the stage (see tests/sdk/stage), and events to wait for.

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"
)

// deadline is the longest wait for anything; only a broken server makes one wait for so long.
const deadline = 30 * time.Second

var serverURL = os.Getenv("ROOMCAST_URL")

// stage asks the stage for something.
func stage(t *testing.T, method, path string, body ...string) string {
	t.Helper()
	text, err := askStage(method, path, strings.Join(body, ""))
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return text
}

func askStage(method, path, body string) (string, error) {
	request, err := http.NewRequest(method, os.Getenv("ROOMCAST_STAGE")+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = errors.New(string(text))
	}
	return string(text), err
}

func token(t *testing.T, options string) string {
	t.Helper()
	return stage(t, "GET", "/token?"+options)
}

// next waits for the next event.
func next[T any](t *testing.T, events chan T, what string) T {
	t.Helper()
	select {
	case event := <-events:
		return event
	case <-time.After(deadline):
		t.Fatalf("waited too long for %s", what)
		panic("unreachable")
	}
}

// peer is a client with what happened to it.
type peer struct {
	*centrifuge.Client
	connected    chan centrifuge.ConnectedEvent
	connecting   chan centrifuge.ConnectingEvent
	disconnected chan centrifuge.DisconnectedEvent
	subscribed   chan centrifuge.ServerSubscribedEvent
	publications chan centrifuge.ServerPublicationEvent
	errors       atomic.Int32
}

// format is one of the two the SDK speaks.
type format struct {
	name string
	make func(string, centrifuge.Config) *centrifuge.Client
}

var formats = []format{{"json", centrifuge.NewJsonClient}, {"protobuf", centrifuge.NewProtobufClient}}

// inEachFormat runs a test with the clients of both formats. The name it gets is taken by no other.
func inEachFormat(t *testing.T, test func(t *testing.T, f format, name string)) {
	for _, f := range formats {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			test(t, f, strings.ReplaceAll(t.Name(), "/", "-"))
		})
	}
}

// connect gives a client that is let in.
func (f format) connect(t *testing.T, url string, config centrifuge.Config) *peer {
	t.Helper()
	p := f.start(t, url, config)
	next(t, p.connected, "connected")
	return p
}

// start gives a client that tries to be let in.
func (f format) start(t *testing.T, url string, config centrifuge.Config) *peer {
	t.Helper()
	config.MinReconnectDelay, config.MaxReconnectDelay = 20*time.Millisecond, 200*time.Millisecond
	p := &peer{
		Client:       f.make(url, config),
		connected:    make(chan centrifuge.ConnectedEvent, 100),
		connecting:   make(chan centrifuge.ConnectingEvent, 100),
		disconnected: make(chan centrifuge.DisconnectedEvent, 100),
		subscribed:   make(chan centrifuge.ServerSubscribedEvent, 100),
		publications: make(chan centrifuge.ServerPublicationEvent, 10_000),
	}
	p.OnConnected(func(e centrifuge.ConnectedEvent) { p.connected <- e })
	p.OnConnecting(func(e centrifuge.ConnectingEvent) { p.connecting <- e })
	p.OnDisconnected(func(e centrifuge.DisconnectedEvent) { p.disconnected <- e })
	p.OnSubscribed(func(e centrifuge.ServerSubscribedEvent) { p.subscribed <- e })
	p.OnPublication(func(e centrifuge.ServerPublicationEvent) { p.publications <- e })
	p.OnError(func(centrifuge.ErrorEvent) { p.errors.Add(1) })
	t.Cleanup(p.Close)
	if err := p.Connect(); err != nil {
		t.Fatal(err)
	}
	return p
}

// stayed fails the test when the client had to connect again.
func (p *peer) stayed(t *testing.T) {
	t.Helper()
	if reconnects := len(p.connecting) - 1; reconnects != 0 || p.errors.Load() != 0 {
		t.Fatalf("%d reconnects and %d errors", reconnects, p.errors.Load())
	}
}

// seat is a subscription with what happened to it.
type seat struct {
	*centrifuge.Subscription
	subscribed   chan centrifuge.SubscribedEvent
	subscribing  chan centrifuge.SubscribingEvent
	unsubscribed chan centrifuge.UnsubscribedEvent
	publications chan centrifuge.PublicationEvent
	joins        chan centrifuge.JoinEvent
	leaves       chan centrifuge.LeaveEvent
	errors       chan centrifuge.SubscriptionErrorEvent
}

// subscribe gives a subscription that stands.
func (p *peer) subscribe(t *testing.T, channel string, config ...centrifuge.SubscriptionConfig) *seat {
	t.Helper()
	s := p.seat(t, channel, config...)
	next(t, s.subscribed, "subscribed")
	return s
}

// seat gives a subscription that is asked for.
func (p *peer) seat(t *testing.T, channel string, config ...centrifuge.SubscriptionConfig) *seat {
	t.Helper()
	subscription, err := p.NewSubscription(channel, config...)
	if err != nil {
		t.Fatal(err)
	}
	s := &seat{
		Subscription: subscription,
		subscribed:   make(chan centrifuge.SubscribedEvent, 100),
		subscribing:  make(chan centrifuge.SubscribingEvent, 100),
		unsubscribed: make(chan centrifuge.UnsubscribedEvent, 100),
		publications: make(chan centrifuge.PublicationEvent, 10_000),
		joins:        make(chan centrifuge.JoinEvent, 100),
		leaves:       make(chan centrifuge.LeaveEvent, 100),
		errors:       make(chan centrifuge.SubscriptionErrorEvent, 100),
	}
	s.OnSubscribed(func(e centrifuge.SubscribedEvent) { s.subscribed <- e })
	s.OnSubscribing(func(e centrifuge.SubscribingEvent) { s.subscribing <- e })
	s.OnUnsubscribed(func(e centrifuge.UnsubscribedEvent) { s.unsubscribed <- e })
	s.OnPublication(func(e centrifuge.PublicationEvent) { s.publications <- e })
	s.OnJoin(func(e centrifuge.JoinEvent) { s.joins <- e })
	s.OnLeave(func(e centrifuge.LeaveEvent) { s.leaves <- e })
	s.OnError(func(e centrifuge.SubscriptionErrorEvent) { s.errors <- e })
	if err := s.Subscribe(); err != nil {
		t.Fatal(err)
	}
	return s
}

// code is that with which a call was refused; 0 when it was not.
func code(err error) uint32 {
	var refusal *centrifuge.Error
	if errors.As(err, &refusal) {
		return refusal.Code
	}
	return 0
}
