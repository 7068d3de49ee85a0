"""``python -m benchmarks.delay``: a TCP proxy with a long line in it.

Without loss it holds each byte back, and does not limit: no bandwidth, no window but that of whoever sends. With loss the
bytes go through a real TCP connection over `benchmarks.lossy`, and TCP does what it does about that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import click

from benchmarks.lossy import LossyLine

_PIECE_BYTES = 256 << 10


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_seconds: float) -> None:
    """Pass on what comes, each piece so much later."""
    loop = asyncio.get_running_loop()
    waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def send() -> None:
        while True:
            due, piece = await waiting.get()
            left = due - loop.time()
            if left > 0:
                await asyncio.sleep(left)
            if not piece:
                return
            writer.write(piece)
            await writer.drain()

    sending = asyncio.create_task(send())
    with contextlib.suppress(OSError):
        while piece := await reader.read(_PIECE_BYTES):
            waiting.put_nowait((loop.time() + delay_seconds, piece))
    waiting.put_nowait((0.0, b""))
    with contextlib.suppress(OSError):
        await sending
    writer.close()


_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_Connect = Callable[[], Awaitable[_Streams]]
_Accepted = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def _joined(connect: _Connect, delay_seconds: float) -> _Accepted:
    """For each connection that comes another one, and what comes by either goes out by the other, so much later."""

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await connect()
        except OSError:  # not up yet
            writer.close()
            return
        await asyncio.gather(
            _pass(reader, there_writer, delay_seconds), _pass(there_reader, writer, delay_seconds)
        )

    return accepted


async def _serve(port: int, target: int, delay_seconds: float, loss: float) -> None:
    def to_target() -> Awaitable[_Streams]:
        return asyncio.open_connection("127.0.0.1", target)

    if not loss:
        server = await asyncio.start_server(_joined(to_target, delay_seconds), "127.0.0.1", port)
        async with server:
            await server.serve_forever()
    line = LossyLine(delay_seconds=delay_seconds, loss=loss)
    line.start(asyncio.get_running_loop())
    far = line.listener.getsockname()[1]
    there = await asyncio.start_server(_joined(to_target, 0.0), sock=line.listener)
    here = await asyncio.start_server(
        _joined(lambda: asyncio.open_connection(line.address, far), 0.0), "127.0.0.1", port
    )
    async with there, here:
        await asyncio.gather(there.serve_forever(), here.serve_forever())


@click.command()
@click.option("--port", type=int, required=True)
@click.option("--target", type=int, required=True)
@click.option("--rtt-ms", type=float, default=0.0)
@click.option("--loss", type=click.FloatRange(0, 0.5), default=0.0, help="Share of packets dropped, each way.")
def main(*, port: int, target: int, rtt_ms: float, loss: float) -> None:
    """Listen on PORT of the loopback and pass on to TARGET, RTT-MS later there and back."""
    asyncio.run(_serve(port, target, rtt_ms / 2000, loss))


if __name__ == "__main__":
    main()
