"""Who is let in: connection tokens, subscription tokens, their expiry and refresh."""

import asyncio

from server import SECRET, sign, unix_time
from support import stayed_connected, subscribe, subscription, to_be_cut_off


async def test_a_token_of_the_command_line_names_the_user(world):
    server = world.server(secured=True)
    ann = await world.connect(server.url, token=server.token("ann", "--info", '{"name":"Ann"}'))
    room = await subscribe(ann, "lobby")
    (info,) = (await room.presence()).clients.values()
    assert (info.user, info.conn_info) == ("ann", {"name": "Ann"})


async def test_who_has_no_good_token_is_turned_away_for_good(world):
    server = world.server(secured=True)
    for token, code in [
        ("", 3501),
        ("no token at all", 3500),
        (sign({"sub": "ann"}, SECRET + "?"), 3500),
        (sign({"exp": unix_time(60)}), 3507),
    ]:
        refused = world.client(server.url, token=token)
        await refused.connect()
        assert (await refused.journal.next("disconnected")).code == code
        assert refused.journal.of("connected") == []


async def test_an_expired_token_is_replaced_by_asking_the_app(world):
    server = world.server(secured=True)

    async def get_token():
        return sign({"sub": "ann", "exp": unix_time(3600)})

    ann = await world.connect(server.url, token=sign({"sub": "ann", "exp": unix_time(-10)}), get_token=get_token)
    room = await subscribe(ann, "lobby")
    await room.publish("let in")
    assert (await room.journal.next("publication")).pub.info.user == "ann"


async def test_a_token_is_refreshed_before_it_expires(world):
    server = world.server(secured=True)
    asked = 0
    often = asyncio.Event()

    async def get_token():
        nonlocal asked
        asked += 1
        if asked == 3:
            often.set()
        return sign({"sub": "ann", "exp": unix_time(2 if asked < 3 else 3600)})

    ann = await world.connect(server.url, get_token=get_token)
    room = await subscribe(ann, "lobby")
    await asyncio.wait_for(often.wait(), 30)
    await room.publish("still the same connection")
    await room.journal.next("publication")
    assert stayed_connected(ann)
    assert ann.journal.of("error") == []


async def test_a_room_that_needs_a_token_is_entered_with_one_for_it(world):
    server = world.server(secured=True)
    ann = await world.connect(server.url, token=server.token("ann"))
    refused = subscription(ann, "$private")
    await refused.subscribe()
    assert (await refused.journal.next("unsubscribed")).code == 103
    ann.remove_subscription(refused)
    room = await subscribe(ann, "$private", token=server.token("ann", "--channel", "$private"))
    await room.publish("inside")
    await room.journal.next("publication")


async def test_a_token_for_another_room_ends_the_connection(world):
    server = world.server(secured=True)
    ann = await world.connect(server.url, token=server.token("ann"))
    await subscription(ann, "$private", token=server.token("ann", "--channel", "$other")).subscribe()
    assert (await ann.journal.next("disconnected")).code == 3500


async def test_a_subscription_token_is_replaced_and_refreshed(world):
    server = world.server(secured=True)
    ann = await world.connect(server.url, token=server.token("ann"))
    asked = 0
    often = asyncio.Event()

    def claim(seconds):
        return sign({"sub": "ann", "channel": "$private", "exp": unix_time(seconds)})

    async def get_token(_channel):
        nonlocal asked
        asked += 1
        if asked == 3:
            often.set()
        return claim(2 if asked < 3 else 3600)

    room = await subscribe(ann, "$private", token=claim(-10), get_token=get_token)
    await asyncio.wait_for(often.wait(), 30)
    await room.publish("still inside")
    await room.journal.next("publication")
    assert len(room.journal.of("subscribed")) == 1
    assert room.journal.of("unsubscribed") == []
    assert [context.error.code for context in room.journal.of("error")] == [109], "only that of the first token"


async def test_a_token_subscribes_its_bearer_to_rooms_which_recover(world):
    server = world.server(secured=True)
    gate = await world.gate(server)
    ann = await world.connect(gate.url, token=server.token("ann", "--channels", "lobby,news"))
    await ann.journal.next("subscribed", 2)
    bob = await world.connect(server.url, token=server.token("bob"))
    room = await subscribe(bob, "lobby")
    await room.publish(1)
    await ann.journal.next("publication")
    gate.shut()
    await to_be_cut_off(ann)
    for n in range(2, 11):
        await room.publish(n)
    gate.open()
    await ann.journal.next("publication", 10)
    assert ann.journal.offsets == list(range(1, 11))


async def test_everybody_has_a_personal_channel_where_the_namespace_gives_one(world):
    config = '[api]\nkey = "the key of the backend"\n[namespace.inbox]\npersonal = true'
    server = world.server(config, secured=True)
    ann = await world.connect(server.url, token=server.token("ann"))
    assert (await ann.journal.next("subscribed")).channel == "inbox:#ann"
    message = {"channel": "inbox:#ann", "data": {"you": "only"}}
    await server.api("publish", message, "the key of the backend")
    assert (await ann.journal.next("publication")).pub.data == {"you": "only"}
