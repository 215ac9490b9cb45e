"""python3 tests/sdk/stage [--as-is] [--port PORT] CONFIG COMMAND…: runs the tests of an SDK in any language.

The command runs once for every database of ROOMCAST_TEST_ON, each time beside a new server with that
configuration file. ROOMCAST_URL is the server's address for SDKs and ROOMCAST_STAGE that of the stage: the
backend of an application and its network, played by this program. All its answers are plain text.

    GET  /token?user=ann        a connection token; with &channel=NAME a subscription token, with
                                &channels=A,B server-side subscriptions, with &seconds=2 a short life
    POST /gate                  the address of a new way to the server, open
    POST /shut?gate=ADDRESS     cuts off those who came by it, and lets nobody in
    POST /open?gate=ADDRESS
    POST /api/METHOD            a call of the HTTP API, with its key
    POST /publish?channel=NAME&from=1&to=9    publishes these numbers, in order

A test that needs a place of its own takes user and room names that no other takes.
"""

import argparse
import asyncio
import http.client
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from gate import Gate
from server import DATABASES, Server, sign, unix_time

API_KEY = "the key of the backend"


class Stage:
    """A server, the ways to it, and the loop in which these live."""

    def __init__(self, server):
        self.server = server
        self.gates = {}
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def in_loop(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def token(self, user, seconds=3600, channel=None, channels=None):
        claims = {"sub": user, "exp": unix_time(int(seconds))}
        if channel:
            claims["channel"] = channel
        if channels:
            claims["channels"] = channels.split(",")
        return sign(claims)

    def gate(self):
        async def make():
            gate = Gate(self.server)
            await gate.listen()
            return gate

        gate = self.in_loop(make())
        self.gates[gate.url] = gate
        return gate.url

    def shut(self, gate):
        async def shut():
            self.gates[gate].shut()

        self.in_loop(shut())
        return ""

    def open(self, gate):
        self.gates[gate].open()
        return ""

    def publish(self, channel, to, **options):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        for number in range(int(options["from"]), int(to) + 1):
            self._call(connection, "publish", json.dumps({"channel": channel, "data": number}).encode())
        connection.close()
        return ""

    def api(self, method, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        answer = self._call(connection, method, body)
        connection.close()
        return answer

    @staticmethod
    def _call(connection, method, body):
        connection.request("POST", f"/api/{method}", body, {"X-API-Key": API_KEY})
        answer = connection.getresponse().read().decode()
        if "result" not in json.loads(answer):
            raise ValueError(f"the API refused {method} of {body}: {answer}")
        return answer


class Requests(BaseHTTPRequestHandler):
    """The stage as the tests reach it."""

    protocol_version = "HTTP/1.1"
    stage = None

    def do_GET(self):
        self._answer()

    def do_POST(self):
        self._answer()

    def _answer(self):
        address = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            status, text = 200, self._do(address.path, dict(parse_qsl(address.query)), body)
        except Exception as error:  # Whatever it is, the test that asked is to show it.
            status, text = 500, repr(error)
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _do(self, path, options, body):
        if path.startswith("/api/"):
            return self.stage.api(path.removeprefix("/api/"), body)
        acts = {f"/{name}": getattr(self.stage, name) for name in ("token", "gate", "shut", "open", "publish")}
        return acts[path](**options)

    def log_message(self, *_):
        pass


def run(database, options):
    """Gives the exit code of the command, or 1 when the server did not end well."""
    server = Server(database, options.config.read_text(), not options.as_is, options.port)
    code = 1
    try:
        server.start()
        requests = type("RequestsHere", (Requests,), {"stage": Stage(server)})
        door = ThreadingHTTPServer(("127.0.0.1", 0), requests)
        threading.Thread(target=door.serve_forever, daemon=True).start()
        here = {"ROOMCAST_URL": server.url, "ROOMCAST_STAGE": f"http://127.0.0.1:{door.server_port}"}
        code = subprocess.run(options.command, env={**os.environ, **here}).returncode
        door.shutdown()
    finally:
        complaint = server.close()
        if complaint:
            print(complaint, file=sys.stderr)
    return code or (1 if complaint else 0)


def main():
    parser = argparse.ArgumentParser(prog="stage")
    parser.add_argument("--as-is", action="store_true", help="nothing is added to the configuration; otherwise it is a secret")
    parser.add_argument("--port", type=int, help="that of the server, for tests that come to no other")
    parser.add_argument("config", type=Path)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    for database in DATABASES:
        print(f"-- on {database}", flush=True)
        if code := run(database, options):
            sys.exit(code)


main()
