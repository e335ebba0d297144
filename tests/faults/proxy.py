"""A network that misbehaves: a TCP proxy between sender and receiver.

Modes: ``pass``; ``cut N`` closes both ends after N bytes of the sender; ``rst N`` resets them; ``half N`` swallows what
follows and stays open; ``rate BPS``; ``delay MS`` before each piece; ``blackhole`` takes everything and passes nothing.
"""

import asyncio
import socket
import struct
from threading import Event, Thread


class FaultProxy:
    """Listens on ``port`` and speaks to ``target``; ``mode`` is read anew for each connection."""

    def __init__(self, target: int, mode: str = "pass") -> None:
        self.target, self.mode = target, mode
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = Event()
        self._thread = Thread(target=self._run, daemon=True)

    def __enter__(self) -> "FaultProxy":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kind, _, argument = self.mode.partition(" ")
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        back = asyncio.ensure_future(_pump(there_reader, writer))
        try:
            await self._forward(kind, int(argument or 0), reader, there_writer)
        except (OSError, asyncio.CancelledError):
            pass  # the streams' own callback would complain of a task that was cancelled
        finally:
            if kind == "rst":
                for end in (writer, there_writer):
                    end.get_extra_info("socket").setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                    )
            for end in (there_writer, writer):
                end.close()
            back.cancel()

    async def _forward(
        self, kind: str, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        passed = 0
        while piece := await reader.read(8192):
            if kind in ("cut", "rst", "half"):
                piece = piece[: number - passed]
            if kind == "rate":
                await asyncio.sleep(len(piece) / number)
            if kind == "delay":
                await asyncio.sleep(number / 1000)
            if kind != "blackhole" and piece:
                writer.write(piece)
                await writer.drain()
            passed += len(piece)
            if kind in ("cut", "rst") and passed >= number:
                return
        if kind in ("half", "blackhole"):
            await asyncio.sleep(3600)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(8192):
            writer.write(piece)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
