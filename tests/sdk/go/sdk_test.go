// Package sdk drives the server by the official Go SDK as an application does: with tokens of a backend, over a
// network that breaks, while an operator ends what it has begun.
package sdk

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/centrifugal/centrifuge-go"
)

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	t.Cleanup(cancel)
	return ctx
}

func TestATokenIsRefreshedBeforeItExpires(t *testing.T) {
	inEachFormat(t, func(t *testing.T, f format, name string) {
		var asked atomic.Int32
		often := make(chan struct{}, 1)
		ann := f.connect(t, serverURL, centrifuge.Config{GetToken: func(centrifuge.ConnectionTokenEvent) (string, error) {
			seconds := 2
			if asked.Add(1) == 3 {
				seconds = 3600
				often <- struct{}{}
			}
			return askStage("GET", fmt.Sprintf("/token?user=%s&seconds=%d", name, seconds), "")
		}})
		room := ann.subscribe(t, name)
		next(t, often, "the third token")
		if _, err := room.Publish(within(t), []byte(`"still the same connection"`)); err != nil {
			t.Fatal(err)
		}
		if info := next(t, room.publications, "the message").Info; info == nil || info.User != name {
			t.Fatalf("the sender is %v", info)
		}
		ann.stayed(t)
	})
}

func TestASubscriptionTokenIsRefreshedBeforeItExpires(t *testing.T) {
	inEachFormat(t, func(t *testing.T, f format, name string) {
		ann := f.connect(t, serverURL, centrifuge.Config{Token: token(t, "user="+name)})
		channel := "$" + name
		var asked atomic.Int32
		often := make(chan struct{}, 1)
		room := ann.subscribe(t, channel, centrifuge.SubscriptionConfig{
			GetToken: func(e centrifuge.SubscriptionTokenEvent) (string, error) {
				seconds := 2
				if asked.Add(1) == 3 {
					seconds = 3600
					often <- struct{}{}
				}
				return askStage("GET", fmt.Sprintf("/token?user=%s&channel=%s&seconds=%d", name, e.Channel, seconds), "")
			},
		})
		next(t, often, "the third token")
		if _, err := room.Publish(within(t), []byte(`"still inside"`)); err != nil {
			t.Fatal(err)
		}
		next(t, room.publications, "the message")
		if len(room.errors) != 0 || len(room.subscribing) != 1 {
			t.Fatalf("%d errors, %d times subscribing", len(room.errors), len(room.subscribing))
		}
		refused := ann.seat(t, channel+"-other")
		if e := next(t, refused.unsubscribed, "the refusal"); e.Code != 103 {
			t.Fatalf("refused with %v", e)
		}
	})
}

func TestWhoHasNoGoodTokenIsTurnedAwayForGood(t *testing.T) {
	inEachFormat(t, func(t *testing.T, f format, name string) {
		for bad, wanted := range map[string]uint32{"no token at all": 3500, "": 3501} {
			stranger := f.start(t, serverURL, centrifuge.Config{Token: bad})
			if e := next(t, stranger.disconnected, "the refusal"); e.Code != wanted {
				t.Fatalf("%q is refused with %v", bad, e)
			}
		}
	})
}

func TestMessagesHistoryAndPresence(t *testing.T) {
	inEachFormat(t, func(t *testing.T, f format, name string) {
		ann := f.connect(t, serverURL, centrifuge.Config{Token: token(t, "user="+name)})
		bob := f.connect(t, serverURL, centrifuge.Config{Token: token(t, "user=bob")})
		room := ann.subscribe(t, name, centrifuge.SubscriptionConfig{JoinLeave: true})
		other := bob.subscribe(t, name)
		join := next(t, room.joins, "a join")
		for join.User != "bob" {
			join = next(t, room.joins, "bob's join")
		}
		for n := 1; n <= 3; n++ {
			if _, err := room.Publish(within(t), fmt.Appendf(nil, `{"n": %d, "text":"é"}`, n)); err != nil {
				t.Fatal(err)
			}
		}
		for n := 1; n <= 3; n++ {
			for _, listener := range []*seat{room, other} {
				got := next(t, listener.publications, "a message")
				if got.Offset != uint64(n) || string(got.Data) != fmt.Sprintf(`{"n": %d, "text":"é"}`, n) || got.Info.User != name {
					t.Fatalf("message %d is %v", n, got)
				}
			}
		}
		page, err := room.History(within(t), centrifuge.WithHistoryLimit(2), centrifuge.WithHistoryReverse(true))
		if err != nil || page.Offset != 3 || len(page.Publications) != 2 || string(page.Publications[0].Data) != `{"n": 3, "text":"é"}` {
			t.Fatalf("history is %v, %v", page, err)
		}
		since := &centrifuge.StreamPosition{Offset: 1, Epoch: page.Epoch}
		page, err = room.History(within(t), centrifuge.WithHistoryLimit(10), centrifuge.WithHistorySince(since))
		if err != nil || len(page.Publications) != 2 || page.Publications[0].Offset != 2 {
			t.Fatalf("history from 1 on is %v, %v", page, err)
		}
		presence, err := room.Presence(within(t))
		if err != nil || len(presence.Clients) != 2 {
			t.Fatalf("presence is %v, %v", presence, err)
		}
		stats, err := room.PresenceStats(within(t))
		if err != nil || stats.NumClients != 2 || stats.NumUsers != 2 {
			t.Fatalf("presence stats are %v, %v", stats, err)
		}
		if err := other.Unsubscribe(); err != nil {
			t.Fatal(err)
		}
		if leave := next(t, room.leaves, "bob's leave"); leave.User != "bob" {
			t.Fatalf("left: %v", leave)
		}
	})
}

// 1000 messages are more than a reply has: the rest comes as pushes.
func TestAClientCutOffGetsWhatItMissedInOrder(t *testing.T) {
	inEachFormat(t, func(t *testing.T, f format, name string) {
		gate := stage(t, "POST", "/gate")
		ann := f.connect(t, gate, centrifuge.Config{Token: token(t, "user="+name+"&channels="+name+"-of-the-token")})
		room := ann.subscribe(t, name)
		stage(t, "POST", "/publish?channel="+name+"&from=1&to=5")
		for n := 1; n <= 5; n++ {
			next(t, room.publications, "the first messages")
		}
		next(t, ann.connecting, "the first attempt")
		stage(t, "POST", "/shut?gate="+gate)
		next(t, ann.connecting, "the cut")
		stage(t, "POST", "/publish?channel="+name+"&from=6&to=1000")
		stage(t, "POST", "/publish?channel="+name+"-of-the-token&from=1&to=20")
		stage(t, "POST", "/open?gate="+gate)
		if e := next(t, room.subscribed, "the second subscribe"); !e.WasRecovering || !e.Recovered {
			t.Fatalf("not recovered: %v", e)
		}
		for n := 6; n <= 1000; n++ {
			if got := next(t, room.publications, "a missed message"); string(got.Data) != strconv.Itoa(n) || got.Offset != uint64(n) {
				t.Fatalf("message %d is %v", n, got)
			}
		}
		for n := 1; n <= 20; n++ {
			if got := next(t, ann.publications, "a missed message of the server's subscription"); got.Offset != uint64(n) {
				t.Fatalf("message %d is %v", n, got)
			}
		}
	})
}

func TestAnOperatorUnsubscribesAndDisconnects(t *testing.T) {
	inEachFormat(t, func(t *testing.T, f format, name string) {
		ann := f.connect(t, serverURL, centrifuge.Config{Token: token(t, "user="+name)})
		room := ann.subscribe(t, name)
		stage(t, "POST", "/api/unsubscribe", `{"user":"`+name+`","channel":"`+name+`"}`)
		if e := next(t, room.unsubscribed, "the end of the subscription"); e.Code != 2000 {
			t.Fatalf("unsubscribed with %v", e)
		}
		next(t, ann.connecting, "the first attempt")
		stage(t, "POST", "/api/disconnect", `{"user":"`+name+`","disconnect":{"code":3000,"reason":"come back"}}`)
		next(t, ann.connecting, "a disconnect to come back from")
		next(t, ann.connected, "the first connection")
		stage(t, "POST", "/api/disconnect", `{"user":"`+name+`"}`)
		if e := next(t, ann.disconnected, "the end of the connection"); e.Code != 3503 {
			t.Fatalf("disconnected with %v", e)
		}
	})
}

func TestCallsAndTheirErrors(t *testing.T) {
	inEachFormat(t, func(t *testing.T, f format, name string) {
		ann := f.connect(t, serverURL, centrifuge.Config{Token: token(t, "user="+name)})
		room := ann.subscribe(t, name)
		call := `{"channel":"` + name + `","data":1,"key":"k"}`
		for range 2 {
			result, err := ann.RPC(within(t), "publish", []byte(call))
			if err != nil || string(result.Data[:11]) != `{"offset":1` {
				t.Fatalf("the call gives %s, %v", result.Data, err)
			}
		}
		next(t, room.publications, "the message")
		_, err := ann.RPC(within(t), "nobody.knows", []byte("{}"))
		if code(err) != 108 {
			t.Fatalf("an unknown method is refused with %v", err)
		}
		if _, err := ann.Publish(within(t), "nowhere:at-all", []byte("1")); code(err) != 102 {
			t.Fatalf("an unknown namespace is refused with %v", err)
		}
		ann.stayed(t)
	})
}

// Deltas are declined: the subscription stands, and gets whole messages.
func TestDeltasAreDeclinedAndTheSDKGoesOnWithoutThem(t *testing.T) {
	inEachFormat(t, func(t *testing.T, f format, name string) {
		ann := f.connect(t, serverURL, centrifuge.Config{Token: token(t, "user="+name)})
		room := ann.subscribe(t, name, centrifuge.SubscriptionConfig{Delta: centrifuge.DeltaTypeFossil})
		for n := range 3 {
			if _, err := room.Publish(within(t), fmt.Appendf(nil, `{"n":%d}`, n)); err != nil {
				t.Fatal(err)
			}
			if got := next(t, room.publications, "a message"); string(got.Data) != fmt.Sprintf(`{"n":%d}`, n) {
				t.Fatalf("message %d is %s", n, got.Data)
			}
		}
		ann.stayed(t)
	})
}

// Bytes that are no JSON come back as they were, live and from history, where the namespace allows them; a client that
// speaks JSON is told that it cannot read them.
func TestBytesThatAreNoJSON(t *testing.T) {
	channel := "raw:" + t.Name()
	data := []byte{0, 1, 0xff, '\n', '{', 0x80}
	ann := format{"protobuf", centrifuge.NewProtobufClient}.connect(t, serverURL, centrifuge.Config{Token: token(t, "user=ann")})
	room := ann.subscribe(t, channel)
	if _, err := room.Publish(within(t), data); err != nil {
		t.Fatal(err)
	}
	if got := next(t, room.publications, "the bytes"); !bytes.Equal(got.Data, data) {
		t.Fatalf("came back as %v", got.Data)
	}
	page, err := room.History(within(t), centrifuge.WithHistoryLimit(1))
	if err != nil || len(page.Publications) != 1 || !bytes.Equal(page.Publications[0].Data, data) {
		t.Fatalf("history is %v, %v", page, err)
	}
	if _, err := ann.subscribe(t, t.Name()).Publish(within(t), data); code(err) != 107 {
		t.Fatalf("elsewhere they are refused with %v", err)
	}
	bob := format{"json", centrifuge.NewJsonClient}.connect(t, serverURL, centrifuge.Config{Token: token(t, "user=bob")})
	if e := next(t, bob.seat(t, channel).unsubscribed, "the refusal"); e.Code != 400 {
		t.Fatalf("refused with %v", e)
	}
}
