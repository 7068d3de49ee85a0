"""``python -m benchmarks.delay``: a TCP proxy that holds each byte back, as a long line would.

It delays and does not limit: no loss, no bandwidth, no window but that of whoever sends.
"""

from __future__ import annotations

import asyncio
import contextlib

import click

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


async def _serve(port: int, target: int, delay_seconds: float) -> None:
    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", target)
        except OSError:  # not up yet
            writer.close()
            return
        await asyncio.gather(
            _pass(reader, there_writer, delay_seconds), _pass(there_reader, writer, delay_seconds)
        )

    server = await asyncio.start_server(accepted, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


@click.command()
@click.option("--port", type=int, required=True)
@click.option("--target", type=int, required=True)
@click.option("--rtt-ms", type=float, default=0.0)
def main(*, port: int, target: int, rtt_ms: float) -> None:
    """Listen on PORT of the loopback and pass on to TARGET, RTT-MS later there and back."""
    asyncio.run(_serve(port, target, rtt_ms / 2000))


if __name__ == "__main__":
    main()
