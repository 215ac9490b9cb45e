"""What one test has: servers, gates to cut clients off, and journals to wait on."""

import asyncio
import json

import centrifuge

from gate import Gate
from server import DEADLINE_S, Server


FORMATS = ["json", "protobuf"]


class World:
    """What one test has: servers, gates and clients. All of it ends with the test."""

    def __init__(self, database, format):
        self.database = database
        self.sdk = {"json": centrifuge.Client, "protobuf": ProtobufClient}[format]
        self.servers = []
        self.gates = []
        self.clients = []

    def server(self, config="", secured=False):
        server = Server(self.database, config, secured)
        self.servers.append(server)
        server.start()
        return server

    async def gate(self, server):
        gate = Gate(server)
        self.gates.append(gate)
        await gate.listen()
        return gate

    def client(self, url, user=None, **options):
        """A client that is not yet connected. `user` names it on an open server."""
        data = {"user": user} if user else None
        journal = Journal()
        client = self.sdk(
            url, events=ClientEvents(journal), data=data, min_reconnect_delay=0.02, max_reconnect_delay=0.2, **options
        )
        client.journal = journal
        self.clients.append(client)
        return client

    async def connect(self, url, user=None, **options):
        client = self.client(url, user, **options)
        await client.connect()
        await client.journal.next("connected")
        return client

    async def close(self):
        """Ends what lives in the loop of the test."""
        for client in self.clients:
            await client.disconnect()
        for gate in self.gates:
            await gate.close()
        # The SDK closes its sockets behind its back; a server that stops would wait for them.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=1)

    def end(self):
        """Ends the processes; complains of those that did not end well."""
        complaints = [complaint for server in self.servers if (complaint := server.close())]
        assert not complaints, "\n".join(complaints)


class ProtobufClient(centrifuge.Client):
    """The SDK speaking Protobuf, for tests that are written in JSON: values where it has bytes."""

    def __init__(self, *args, **options):
        super().__init__(*args, use_protobuf=True, **options)

    def _encode_data(self, data):
        return super()._encode_data(json.dumps(data).encode())

    def _decode_data(self, data):
        encoded = super()._decode_data(data)
        return json.loads(encoded) if encoded else None


# ---- waiting -----------------------------------------------------------------------------------


class Journal:
    """Every event of a client or subscription, in order, to look at and to wait for."""

    def __init__(self):
        self.events = []
        self.changed = asyncio.Condition()

    async def note(self, kind, context):
        async with self.changed:
            self.events.append((kind, context))
            self.changed.notify_all()

    def of(self, kind):
        return [context for noted, context in self.events if noted == kind]

    @property
    def publications(self):
        return [context.pub for context in self.of("publication")]

    @property
    def offsets(self):
        return [publication.offset for publication in self.publications]

    @property
    def data(self):
        return [publication.data for publication in self.publications]

    async def until(self, what, condition):
        """Waits until `condition` holds, which is looked at with every event."""
        async with self.changed:
            try:
                await asyncio.wait_for(self.changed.wait_for(condition), DEADLINE_S)
            except asyncio.TimeoutError:
                raise AssertionError(f"waited too long for {what}; last: {self.events[-20:]}") from None

    async def next(self, kind, count=1):
        """Waits until there are `count` events of a kind, and gives the last of them."""
        await self.until(f"{kind}, {count} times", lambda: len(self.of(kind)) >= count)
        return self.of(kind)[count - 1]


class Events:
    """Writes every callback of a handler into a journal."""

    def __init__(self, journal):
        for name in dir(self):
            if name.startswith("on_"):
                setattr(self, name, self._noting(journal, name.removeprefix("on_")))

    @staticmethod
    def _noting(journal, kind):
        async def note(context):
            await journal.note(kind, context)

        return note


class ClientEvents(Events, centrifuge.ClientEventHandler):
    pass


class SubscriptionEvents(Events, centrifuge.SubscriptionEventHandler):
    pass


def stayed_connected(client):
    """True when the client connected once; a reconnect is told as one or the other, as the SDK's age has it."""
    return len(client.journal.of("connecting")) == 1 and not client.journal.of("disconnected")


async def to_be_cut_off(client):
    await client.journal.until("the client to be cut off", lambda: not stayed_connected(client))


def subscription(client, channel, **options):
    """A subscription with a journal."""
    journal = Journal()
    made = client.new_subscription(
        channel, events=SubscriptionEvents(journal), min_resubscribe_delay=0.02, max_resubscribe_delay=0.2, **options
    )
    made.journal = journal
    return made


async def subscribe(client, channel, **options):
    """A subscription that stands."""
    made = subscription(client, channel, **options)
    await made.subscribe()
    await made.journal.next("subscribed")
    return made


async def code_of(call):
    """The code a call was refused with."""
    try:
        await call
    except centrifuge.CentrifugeError as error:
        return error.code
    return "no error"
