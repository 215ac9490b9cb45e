"""What stands between clients and a server, to cut the clients off."""

import asyncio


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
