"""A real `roomcast serve` on a database of its own, for the tests of SDKs in any language."""

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

DEADLINE_S = 30
"""Longest wait for anything; reached only when something is broken."""

SECRET = "the secret of the tests, long enough"

ROOT = Path(__file__).resolve().parents[3]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
BINARY = Path(os.environ.get("ROOMCAST_BIN", TARGET / "debug" / "roomcast"))
DATABASES = os.environ.get("ROOMCAST_TEST_ON", "sqlite,postgres").split(",")


class Server:
    def __init__(self, database, config, secured, port=None):
        """`port` is one that the tests of others insist on; without it, any that is free."""
        self.folder = Path(tempfile.mkdtemp(prefix="roomcast-test-"))
        self.log_file = self.folder / "server.log"
        self.config_file = self.folder / "roomcast.toml"
        self.process = None
        self.port = port
        self.insists = port is not None
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
            assert "in use" in self.log.lower() and not self.insists, f"the server does not start:\n{self.log}"
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
