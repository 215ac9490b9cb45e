"""Clients that were cut off, and servers that died: nothing is missing afterwards, nothing comes twice."""

import asyncio

from centrifuge import CentrifugeError, StreamPosition

from support import subscribe, subscription, to_be_cut_off


async def cut_off(world, server, channel="lobby"):
    """A client behind a gate and one before it, both in the room."""
    gate = await world.gate(server)
    away = await subscribe(await world.connect(gate.url, "away"), channel)
    here = await subscribe(await world.connect(server.url, "here"), channel)
    return gate, away, here


async def test_a_client_that_was_away_gets_what_it_missed_once(world):
    server = world.server()
    gate, away, here = await cut_off(world, server)
    await here.publish(1)
    await away.journal.next("publication")
    gate.shut()
    await away.journal.next("subscribing", 2)
    for n in range(2, 31):
        await here.publish(n)
    gate.open()
    again = await away.journal.next("subscribed", 2)
    assert (again.was_recovering, again.recovered) == (True, True)
    await here.publish(31)
    await away.journal.next("publication", 31)
    assert away.journal.data == away.journal.offsets == list(range(1, 32))


async def test_what_was_missed_may_be_more_than_a_frame_holds(world):
    # SDKs up to 0.5.0 end the connection at a frame of more than 1 MiB.
    server = world.server()
    gate, away, here = await cut_off(world, server)
    gate.shut()
    await away.journal.next("subscribing", 2)
    filler = "x" * 40_000
    for start in range(1, 81, 20):
        await asyncio.gather(*(here.publish({"n": n, "filler": filler}) for n in range(start, start + 20)))
    gate.open()
    await away.journal.next("publication", 80)
    assert away.journal.offsets == list(range(1, 81))
    assert [data["n"] for data in away.journal.data] == list(range(1, 81))
    assert away.journal.of("subscribed")[-1].recovered


async def test_a_killed_server_loses_nothing_that_it_acknowledged(world):
    server = world.server()
    ann = await subscribe(await world.connect(server.url, "ann"), "lobby")
    bob = await subscribe(await world.connect(server.url, "bob"), "lobby")
    acked = []
    speaking = True

    async def speak():
        n = 0
        while speaking:
            n += 1
            try:
                await ann.publish(n)
                acked.append(n)
            except CentrifugeError:
                await asyncio.sleep(0)

    speech = asyncio.create_task(speak())
    for death in (1, 2):
        await bob.journal.next("publication", len(bob.journal.data) + 50)
        server.kill()
        server.start()
        await bob.journal.next("subscribed", death + 1)
    speaking = False
    await speech
    await ann.ready()
    await ann.publish("the end")
    for room in (ann, bob):
        await room.journal.until("the last word", lambda: "the end" in room.journal.data)
        assert room.journal.offsets == list(range(1, len(room.journal.offsets) + 1))
        assert set(acked) <= set(room.journal.data)
    history = await bob.history(limit=-1)
    assert [one.data for one in history.publications] == bob.journal.data


async def test_a_server_that_stops_in_good_order_lets_everybody_come_back(world):
    server = world.server()
    ann = await world.connect(server.url, "ann")
    room = await subscribe(ann, "lobby")
    await room.publish("before")
    assert await asyncio.to_thread(server.stop) == 0
    await to_be_cut_off(ann)
    server.start()
    await room.journal.next("subscribed", 2)
    await room.publish("after")
    await room.journal.next("publication", 2)
    assert room.journal.data == ["before", "after"]


async def test_a_position_that_is_no_longer_kept_is_not_recovered(world):
    server = world.server("[namespace.short]\nhistory_size = 2")
    gate, away, here = await cut_off(world, server, "short:room")
    await here.publish(1)
    await away.journal.next("publication")
    gate.shut()
    await away.journal.next("subscribing", 2)
    for n in range(2, 7):
        await here.publish(n)
    gate.open()
    again = await away.journal.next("subscribed", 2)
    assert (again.was_recovering, again.recovered, again.stream_position.offset) == (True, False, 6)
    await here.publish(7)
    assert (await away.journal.next("publication", 2)).pub.offset == 7


async def test_an_app_that_loads_its_state_is_asked_to(world):
    server = world.server("[namespace.short]\nhistory_size = 2")
    gate = await world.gate(server)
    here = await subscribe(await world.connect(server.url, "here"), "short:room")
    loaded = []

    async def get_state(_channel):
        history = await here.history(limit=0)
        loaded.append(history.offset)
        return StreamPosition(offset=history.offset, epoch=history.epoch)

    await here.publish(1)
    away = subscription(await world.connect(gate.url, "away"), "short:room", get_state=get_state)
    await away.subscribe()
    await away.journal.next("subscribed")
    gate.shut()
    await away.journal.next("subscribing", 2)
    for n in range(2, 7):
        await here.publish(n)
    gate.open()
    await away.journal.next("subscribed", 2)
    await here.publish(7)
    await away.journal.until("the newest message", lambda: 7 in away.journal.offsets)
    assert (loaded, away.journal.offsets) == ([1, 6], [7])
