"""A real server on a database of its own, a gate to cut its clients off, and journals to wait on."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import random
import secrets
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import centrifuge

DEADLINE_S = 30
"""Longest wait for anything; reached only when something is broken."""

SECRET = "the secret of the tests, long enough"

ROOT = Path(__file__).resolve().parents[3]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
BINARY = Path(os.environ.get("ROOMCAST_BIN", TARGET / "debug" / "roomcast"))
DATABASES = os.environ.get("ROOMCAST_TEST_ON", "sqlite,postgres").split(",")


class World:
    """What one test has: servers, gates and clients. All of it ends with the test."""

    def __init__(self, database):
        self.database = database
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
        client = centrifuge.Client(
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


# ---- the server --------------------------------------------------------------------------------


class Server:
    def __init__(self, database, config, secured):
        self.folder = Path(tempfile.mkdtemp(prefix="roomcast-test-"))
        self.log_file = self.folder / "server.log"
        self.config_file = self.folder / "roomcast.toml"
        self.process = None
        self.port = None
        config = config if "[client]" in config else f"{config}\n[client]\n"
        secret = f'[client]\ntoken_hmac_secret = "{SECRET}"' if secured else "[client]"
        self.config_file.write_text(config.replace("[client]", secret) + "\n")
        self.database_url = create_database() if database == "postgres" else f"sqlite:{self.folder}/chat.db"

    @property
    def url(self):
        return f"ws://127.0.0.1:{self.port}/connection/websocket"

    @property
    def log(self):
        return self.log_file.read_text() if self.log_file.exists() else ""

    def start(self):
        """Starts it, the second time on the port of the first."""
        assert BINARY.exists(), f"{BINARY} is not built: run cargo build"
        for attempt in range(20):
            # Not a port of the ephemeral range: nobody's outgoing connection may take it during a restart.
            self.port = self.port or random.randrange(10_000, 30_000)
            if self._launch():
                return
            assert "in use" in self.log.lower(), f"the server does not start:\n{self.log}"
            self.port = None
        raise AssertionError("no free port was found")

    def _launch(self):
        listen = f"127.0.0.1:{self.port}"
        command = [BINARY, "serve", "--config", self.config_file, "--listen", listen, "--database", self.database_url]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=bare_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
            )
        # The start block comes when the server listens; its end, without one, when it does not start.
        for line in self.process.stdout:
            if f"http://{listen}/\n" in line.decode():
                return True
        self.process.wait(DEADLINE_S)
        return False

    def kill(self):
        """As `kill -9` and power cuts do it."""
        self.process.kill()
        self._reap()

    def stop(self):
        """In good order; gives the exit code."""
        self.process.terminate()
        return self._reap()

    def _reap(self):
        self.process.stdout.close()
        return self.process.wait(DEADLINE_S)

    def close(self):
        """Stops it and removes its folder; gives what went wrong."""
        code = 0
        if self.process and self.process.poll() is None:
            try:
                code = self.stop()
            except subprocess.TimeoutExpired:
                self.kill()
                code = "none within the deadline"
        log = self.log
        shutil.rmtree(self.folder)
        if code != 0:
            return f"the server ended with {code}:\n{log}"
        return f"the server panicked:\n{log}" if "panicked" in log else None

    def token(self, user, *more):
        """A token made by the command line, as its reader would."""
        command = [BINARY, "token", "--config", self.config_file, "--user", user, *more]
        return subprocess.run(command, env=bare_environment(), check=True, capture_output=True, text=True).stdout.strip()

    async def api(self, method, params, key=None):
        """A call of the HTTP API."""
        headers = {"X-API-Key": key} if key else {}
        url = f"http://127.0.0.1:{self.port}/api/{method}"
        request = urllib.request.Request(url, json.dumps(params).encode(), headers)

        def call():
            with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
                return json.load(answer)

        return await asyncio.to_thread(call)


def bare_environment():
    """Settings of the one who runs the tests are none of the server's."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ROOMCAST_")}


def create_database():
    cluster = os.environ.get("ROOMCAST_TEST_DATABASE_URL")
    assert cluster, "no PostgreSQL to test on: run by tests/with-postgres COMMAND, or with ROOMCAST_TEST_ON=sqlite"
    name = f"roomcast_{secrets.token_hex(6)}"
    subprocess.run(["psql", "-q", "-d", cluster, "-c", f"CREATE DATABASE {name}"], check=True)
    return urlsplit(cluster)._replace(path=f"/{name}").geturl()


def sign(claims, secret=SECRET):
    """A token with exactly these claims, as a backend signs it."""

    def part(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    text = part(b'{"alg":"HS256","typ":"JWT"}') + "." + part(json.dumps(claims).encode())
    return f"{text}.{part(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest())}"


def unix_time(seconds=0):
    """Now, and `seconds` more."""
    return int(time.time()) + seconds


# ---- cutting clients off -----------------------------------------------------------------------


class Gate:
    """A door between clients and the server: shut it and they are cut off, open it and they may come back."""

    def __init__(self, server):
        self.server = server
        self.is_open = True
        self.writers = set()
        self.door = None

    async def listen(self):
        self.door = await asyncio.start_server(self._admit, "127.0.0.1", 0)

    @property
    def url(self):
        port = self.door.sockets[0].getsockname()[1]
        return f"ws://127.0.0.1:{port}/connection/websocket"

    async def _admit(self, reader, writer):
        if not self.is_open:
            return writer.transport.abort()
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        except OSError:
            return writer.transport.abort()
        pair = {writer, far_writer}
        self.writers |= pair
        try:
            await asyncio.gather(self._pass_on(reader, far_writer), self._pass_on(far_reader, writer))
        except OSError:
            pass  # Cut off, which is what a gate is for.
        finally:
            self.writers -= pair
            for end in pair:
                end.transport.abort()

    @staticmethod
    async def _pass_on(source, sink):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
        raise ConnectionResetError

    def shut(self):
        self.is_open = False
        for writer in self.writers:
            writer.transport.abort()

    def open(self):
        self.is_open = True

    async def close(self):
        self.shut()
        self.door.close()


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
