// What chat needs beyond the protocol: contacts and their rooms, publishing that may be repeated,
// and how far one has read.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { codeOf, connect, everywhere, startServer, subscribe, subscription } from "./support.mjs";

everywhere(describe, ({ Centrifuge, database }) => {
  /** Connected users of a server where everybody needs a token, or of an open one. */
  const people = async (t, names, { secured = true } = {}) => {
    const server = await startServer(t, { database, secured });
    const identity = (user) => (secured ? { token: server.token(user) } : { user });
    return Promise.all(names.map((user) => connect(t, Centrifuge, server.url, identity(user))));
  };

  for (const secured of [true, false]) {
    test(`the room of two contacts is theirs alone, on ${secured ? "a secured" : "an open"} server`, async (t) => {
      const [ann, bob, eve] = await people(t, ["ann", "bob", "eve"], { secured });
      const add = async (who, user) => (await who.rpc("contacts.add", { user })).data;
      // Both at once, and again: it is one room.
      const [annsView, bobsView] = await Promise.all([add(ann, "bob"), add(bob, "ann")]);
      assert.match(annsView.channel, /^direct:[0-9a-f-]{36}$/);
      assert.deepEqual([annsView.user, bobsView], ["bob", { user: "ann", channel: annsView.channel }]);
      assert.deepEqual(await add(ann, "bob"), annsView);
      assert.deepEqual((await ann.rpc("contacts.list", {})).data, { contacts: [annsView] });

      const { channel } = annsView;
      const [anns, bobs] = await Promise.all([ann, bob].map((one) => subscribe(one, channel)));
      await anns.publish({ text: "only you" });
      const { info, offset } = await bobs.journal.next("publication");
      assert.deepEqual([info.user, offset], ["ann", 1]);

      const tried = subscription(eve, channel);
      tried.subscribe();
      assert.equal((await tried.journal.next("unsubscribed")).code, 103);
      assert.equal(await codeOf(eve.publish(channel, "let me in")), 103);
      assert.equal(await codeOf(eve.history(channel, { limit: 10 })), 103);
      assert.equal(await codeOf(eve.presence(channel)), 103);
      assert.equal(await codeOf(eve.presenceStats(channel)), 103);
      assert.equal(await codeOf(eve.rpc("publish", { channel, data: "let me in" })), 103);
      assert.equal(await codeOf(eve.rpc("rooms.read", { channel, seq: 1 })), 103);
      assert.deepEqual((await anns.presenceStats()), { numClients: 2, numUsers: 2 });

      await ann.rpc("contacts.remove", { user: "bob" });
      assert.deepEqual((await ann.rpc("contacts.list", {})).data, { contacts: [] });
    });
  }

  test("a message that is sent again with its key is there once", async (t) => {
    const [ann, bob] = await people(t, ["ann", "bob"]);
    const lobby = await subscribe(ann, "lobby");
    const bobs = await subscribe(bob, "lobby");
    const send = async (who, data, key) => (await who.rpc("publish", { channel: "lobby", data, key })).data.offset;
    assert.equal(await send(ann, "first", "key 1"), 1);
    assert.equal(await send(ann, "first", "key 1"), 1);
    assert.equal(await send(bob, "mine", "key 1"), 2, "keys of others are none of mine");
    assert.equal(await send(ann, "second", "key 2"), 3);
    await bobs.journal.next("publication", 3);
    assert.deepEqual(bobs.journal.data, ["first", "mine", "second"]);
    const { publications } = await lobby.history({ limit: -1 });
    assert.deepEqual(publications.map(({ data }) => data), ["first", "mine", "second"]);
  });

  test("how far one has read is kept and never goes back", async (t) => {
    const [ann, bob] = await people(t, ["ann", "bob"]);
    const { channel } = (await ann.rpc("contacts.add", { user: "bob" })).data;
    const room = await subscribe(ann, channel);
    for (const text of ["one", "two", "three"]) await room.publish({ text });
    const unread = async () => (await bob.rpc("rooms.unread", {})).data.rooms;
    assert.deepEqual(await unread(), [{ channel, head: 3, last_read: 0, unread: 3 }]);
    assert.deepEqual((await bob.rpc("rooms.read", { channel, seq: 2 })).data, { last_read: 2, unread: 1 });
    assert.deepEqual((await bob.rpc("rooms.read", { channel, seq: 1 })).data, { last_read: 2, unread: 1 });
    assert.deepEqual(await unread(), [{ channel, head: 3, last_read: 2, unread: 1 }]);
  });
});
