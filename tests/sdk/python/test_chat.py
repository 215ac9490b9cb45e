"""Rooms as a chat uses them: messages, history, presence, comings and goings, contacts."""

import asyncio

from centrifuge import StreamPosition

from support import code_of, stayed_connected, subscribe, subscription


async def test_two_people_chat_and_each_sees_every_message_once_in_order(world):
    server = world.server()
    ann = await world.connect(server.url, "ann")
    bob = await world.connect(server.url, "bob")
    anns, bobs = await subscribe(ann, "lobby"), await subscribe(bob, "lobby")
    await anns.publish({"text": "hello, Bob"})
    await bobs.publish({"text": "hello, Ann"})
    await anns.publish({"text": "bye"})
    said = [("hello, Bob", "ann", 1), ("hello, Ann", "bob", 2), ("bye", "ann", 3)]
    for room in (anns, bobs):
        await room.journal.next("publication", 3)
        assert [(one.data["text"], one.info.user, one.offset) for one in room.journal.publications] == said


async def test_history_pages_forwards_and_backwards(world):
    server = world.server()
    ann = await world.connect(server.url, "ann")
    room = await subscribe(ann, "lobby")
    for n in range(1, 8):
        await room.publish(n)
    epoch = (await room.history(limit=0)).epoch

    async def page(**options):
        found = await room.history(**options)
        assert (found.offset, found.epoch) == (7, epoch)
        assert [one.data for one in found.publications] == [one.offset for one in found.publications]
        return [one.offset for one in found.publications]

    def since(offset):
        return StreamPosition(offset=offset, epoch=epoch)

    assert await page(limit=0) == []
    assert await page(limit=-1) == [1, 2, 3, 4, 5, 6, 7]
    assert await page(limit=3) == [1, 2, 3]
    assert await page(limit=3, reverse=True) == [7, 6, 5]
    assert await page(limit=2, since=since(3)) == [4, 5]
    assert await page(limit=2, since=since(5), reverse=True) == [4, 3]
    assert await code_of(room.history(limit=1, since=StreamPosition(offset=3, epoch="elsewhere"))) == 112
    assert await code_of(room.history(limit=1, since=since(0), reverse=True)) == 107


async def test_presence_names_who_is_here(world):
    server = world.server()
    ann, again, bob = [await world.connect(server.url, user) for user in ("ann", "ann", "bob")]
    rooms = [await subscribe(one, "lobby") for one in (ann, again, bob)]
    clients = (await rooms[0].presence()).clients
    ids = [one.journal.of("connected")[0].client for one in (ann, again, bob)]
    assert {client: info.user for client, info in clients.items()} == dict(zip(ids, ["ann", "ann", "bob"]))
    stats = await rooms[0].presence_stats()
    assert (stats.num_clients, stats.num_users) == (3, 2)


async def test_comings_and_goings_are_told(world):
    server = world.server()
    ann = await world.connect(server.url, "ann")
    room = await subscribe(ann, "lobby")
    assert (await room.journal.next("join")).info.user == "ann"
    bob = await world.connect(server.url, "bob")
    bobs = await subscribe(bob, "lobby")
    assert (await bobs.journal.next("join")).info.user == "bob"
    assert (await room.journal.next("join", 2)).info.user == "bob"
    await bobs.unsubscribe()
    assert (await room.journal.next("leave")).info.user == "bob"
    assert bobs.journal.of("leave") == []
    await bobs.subscribe()
    await room.journal.next("join", 3)
    await bob.disconnect()
    assert (await room.journal.next("leave", 2)).info.user == "bob"


async def test_leaving_and_coming_back_ten_times_ends_inside_once(world):
    server = world.server()
    ann = await world.connect(server.url, "ann")
    room = await subscribe(ann, "lobby")
    for _ in range(10):
        await room.unsubscribe()
        await room.subscribe()
    await room.ready()
    await room.publish("after the burst")
    await room.publish("and after that")
    await room.journal.until("both messages", lambda: "and after that" in room.journal.data)
    assert room.journal.data == ["after the burst", "and after that"]
    stats = await room.presence_stats()
    assert (stats.num_clients, stats.num_users) == (1, 1)
    assert stayed_connected(ann)


async def test_many_messages_sent_without_waiting_keep_their_order(world):
    server = world.server()
    ann = await world.connect(server.url, "ann")
    bob = await world.connect(server.url, "bob")
    anns, bobs = await subscribe(ann, "lobby"), await subscribe(bob, "lobby")
    await asyncio.gather(*(anns.publish(n) for n in range(300)))
    await bobs.journal.next("publication", 300)
    assert bobs.journal.data == list(range(300))
    assert bobs.journal.offsets == list(range(1, 301))


async def test_payloads_arrive_as_they_were_sent(world):
    server = world.server()
    ann = await world.connect(server.url, "ann")
    room = await subscribe(ann, "lobby")
    payloads = [{"nested": {"deep": [{"er": True}]}}, "line\nline\r\n\u2028", "héllo 👋🏽 שלום", [None, -1.5e-7], "x" * 60_000]
    for payload in payloads:
        await room.publish(payload)
    await room.journal.next("publication", len(payloads))
    assert room.journal.data == payloads


async def test_what_is_not_there_has_the_code_the_protocol_gives_it(world):
    server = world.server()
    ann = await world.connect(server.url, "ann")
    assert await code_of(ann.rpc("contacts.no_such_method", {})) == 104
    assert await code_of(ann.rpc("no.such.method", {})) == 108
    assert await code_of(ann.publish("nowhere:room", {})) == 102
    refused = subscription(ann, "nowhere:room")
    await refused.subscribe()
    assert (await refused.journal.next("unsubscribed")).code == 102


async def test_an_idle_client_answers_pings_and_stays(world):
    server = world.server('[client]\nping_interval = "1s"\npong_timeout = "500ms"\n[api]\nkey = "the key of the backend"')
    ann = await world.connect(server.url, "ann", max_server_ping_delay=1.0)
    room = await subscribe(ann, "lobby")
    pings = asyncio.Semaphore(0)
    answer = ann._handle_ping

    async def counting():
        await answer()
        pings.release()

    ann._handle_ping = counting
    # The fourth is not sent to a client whose answer to the third was missing.
    for _ in range(4):
        await asyncio.wait_for(pings.acquire(), 30)
    await room.publish("still here")
    assert stayed_connected(ann)


async def test_the_room_of_two_contacts_is_theirs_alone(world):
    server = world.server(secured=True)
    ann, bob, eve = [await world.connect(server.url, token=server.token(user)) for user in ("ann", "bob", "eve")]
    views = await asyncio.gather(ann.rpc("contacts.add", {"user": "bob"}), bob.rpc("contacts.add", {"user": "ann"}))
    channel = views[0].data["channel"]
    assert [view.data for view in views] == [{"user": "bob", "channel": channel}, {"user": "ann", "channel": channel}]
    anns, bobs = await subscribe(ann, channel), await subscribe(bob, channel)
    await anns.publish({"text": "only you"})
    assert (await bobs.journal.next("publication")).pub.info.user == "ann"

    tried = subscription(eve, channel)
    await tried.subscribe()
    assert (await tried.journal.next("unsubscribed")).code == 103
    assert await code_of(eve.publish(channel, "let me in")) == 103
    assert await code_of(eve.history(channel, limit=10)) == 103
    assert await code_of(eve.presence(channel)) == 103


async def test_a_message_that_is_sent_again_with_its_key_is_there_once(world):
    server = world.server()
    ann = await world.connect(server.url, "ann")
    room = await subscribe(ann, "lobby")
    for _ in range(2):
        sent = await ann.rpc("publish", {"channel": "lobby", "data": "first", "key": "key 1"})
        assert sent.data["offset"] == 1
    await room.publish("second")
    await room.journal.next("publication", 2)
    assert room.journal.data == ["first", "second"]


async def test_what_a_backend_publishes_by_http_reaches_subscribers(world):
    server = world.server('[api]\nkey = "the key of the backend"')
    ann = await world.connect(server.url, "ann")
    room = await subscribe(ann, "lobby")
    message = {"channel": "lobby", "data": {"from": "backend"}, "tags": {"kind": "note"}}
    assert (await server.api("publish", message, "the key of the backend"))["result"]["offset"] == 1
    publication = (await room.journal.next("publication")).pub
    assert (publication.data, publication.tags, publication.info) == ({"from": "backend"}, {"kind": "note"}, None)
    await server.api("unsubscribe", {"user": "ann", "channel": "lobby"}, "the key of the backend")
    assert (await room.journal.next("unsubscribed")).code == 2000
    await server.api("disconnect", {"user": "ann"}, "the key of the backend")
    assert (await ann.journal.next("disconnected")).code == 3503
