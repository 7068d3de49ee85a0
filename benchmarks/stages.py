"""Where the microseconds of a change go, stage by stage, without servers: ``python -m benchmarks.stages``.

CPU time of the thread, so that whatever else the machine does counts as little as possible; of several repetitions the
best. What servers and sockets cost is in ``python -m benchmarks``.
"""

from __future__ import annotations

import cProfile
import gc
import pstats
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial

import click
import zstandard
from rich.console import Console
from rich.table import Table

from benchmarks.messages import WORKLOADS, Transaction, Workload, relations
from consumers.text_rows import copy_blocks, text_array
from embassy.model.batch import Batch, Operation
from embassy.model.lsn import Lsn
from embassy.runtime.config import ProducerTuning
from embassy.wire.batch_codec import BatchEncoder, decode_batch
from embassy.wire.opening import Decompressor, Opener
from embassy.wire.record_codec import decode_record
from embassy.wire.sealing import Sealer
from embassy.wire.verifying import RecordVerifier
from producers.batch_builder import PART_MESSAGES, BatchBuilder
from tests.harness.envelope import ENROLMENT, GENESIS, HOME, OSLO, RIGA

_TUNING = ProducerTuning()
_OF_WHICH = "  of which compress"
_STAGES = (
    ("decode and sort", "producer"),
    ("lay out", "producer"),
    ("encode", "producer"),
    ("compress, seal, sign", "producer"),
    (_OF_WHICH, ""),
    ("read record", "both readers"),
    ("verify", "both readers"),
    ("open", "consumer"),
    ("decompress", "consumer"),
    ("decode batch", "consumer"),
    ("make parameters", "consumer"),
)


@dataclass
class Stopwatch:
    """CPU nanoseconds by stage, of one repetition."""

    spent: dict[str, int] = field(default_factory=dict)
    profiles: dict[str, cProfile.Profile] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Charge what happens inside to a stage."""
        with self.profiles.get(name) or nullcontext():
            begun = time.thread_time_ns()
            yield
            self.spent[name] = self.spent.get(name, 0) + time.thread_time_ns() - begun


@dataclass
class Volume:
    """How much there was of a workload, from the message to the record."""

    changes: int = 0
    batches: int = 0
    message_bytes: int = 0
    encoded_bytes: int = 0
    record_bytes: int = 0

    def ratios(self) -> dict[str, float]:
        """What the table's last rows show."""
        return {
            "changes a batch": self.changes / self.batches,
            "message bytes a change": self.message_bytes / self.changes,
            "encoded bytes a change": self.encoded_bytes / self.changes,
            "record bytes a change": self.record_bytes / self.changes,
        }


def run(workload: Workload, changes: int, profiled: dict[str, cProfile.Profile]) -> tuple[dict[str, int], Volume]:
    """Take a workload through all stages once."""
    transactions = workload.transactions(changes)
    watch = Stopwatch(profiles=profiled)
    gc.collect()
    batches = _build(transactions, watch, alone=workload.alone)
    encoder = BatchEncoder()
    with watch.stage("encode"):
        encoded = [encoder.encode(batch) for batch in batches]
    with watch.stage(_OF_WHICH):
        compressor = zstandard.ZstdCompressor(level=1)
        for content in encoded:
            compressor.compress(content)
    values = _sealed(encoded, watch)
    _read(values, encoded, watch)
    volume = Volume(
        changes=sum(len(transaction.messages) for transaction in transactions),
        batches=len(batches),
        message_bytes=sum(len(message) for transaction in transactions for message in transaction.messages),
        encoded_bytes=sum(map(len, encoded)),
        record_bytes=sum(map(len, values[1:])),
    )
    return watch.spent, volume


def _build(transactions: Sequence[Transaction], watch: Stopwatch, *, alone: bool) -> list[Batch]:
    """Batches by the producer's rules for a backlog."""
    builder = BatchBuilder()
    for message in relations():
        builder.relations.take(message)
    batches: list[Batch] = []

    def laid_out(build: Callable[[], Batch]) -> None:
        with watch.stage("lay out"):
            batches.append(build())

    for begin, commit, messages in transactions:
        if len(messages) <= PART_MESSAGES:
            with watch.stage("decode and sort"):
                builder.add_transaction(begin, commit, messages)
            if alone or builder.full or builder.value_bytes >= _TUNING.batch_bytes:
                laid_out(builder.build_whole)
            continue
        parts = list(_parts(messages))
        for number, part in enumerate(parts):
            with watch.stage("decode and sort"):
                builder.add_part(begin, part)
            last = commit if number == len(parts) - 1 else None
            laid_out(partial(builder.build_part, begin, number, last))
    if builder.transactions:
        laid_out(builder.build_whole)
    return batches


def _parts(messages: Sequence[bytes]) -> Iterator[list[bytes]]:
    part: list[bytes] = []
    size = 0
    for message in messages:
        part.append(message)
        size += len(message)
        if size >= _TUNING.batch_bytes or len(part) >= PART_MESSAGES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _sealed(encoded: Sequence[bytes], watch: Stopwatch) -> list[bytes]:
    """The records' Kafka values, the KEY record first."""
    sealer = Sealer(HOME, ENROLMENT, (OSLO.public, RIGA.public))
    key = sealer.key_record(GENESIS, bytes(16), system_identifier=7, timeline=1)
    head, values = key.head, [key.value]
    with watch.stage("compress, seal, sign"):
        for content in encoded:
            resume = Lsn(head.resume_lsn + 1)
            for sealed in sealer.data_records(head, content, resume, _TUNING.record_bytes):
                head = sealed.head
                values.append(sealed.value)
    return values


def _read(values: Sequence[bytes], encoded: Sequence[bytes], watch: Stopwatch) -> None:
    """What bridge and consumer do with the records, up to the parameters of statements."""
    verifier, opener = RecordVerifier(ENROLMENT), Opener(RIGA, ENROLMENT)
    opener.take_key(decode_record(values[0]))
    with watch.stage("read record"):
        records = [decode_record(value) for value in values[1:]]
    with watch.stage("verify"):
        verified = verifier.of_run(records)
    with watch.stage("open"):
        contents = [opener.open(record) for record in records]
    found = []
    with watch.stage("decompress"):
        batch = Decompressor()
        for record, content in zip(records, contents, strict=True):
            batch.add(content)
            if record.header.last:
                found.append(batch.finish())
                batch = Decompressor()
    with watch.stage("decode batch"):
        decoded = [decode_batch(content) for content in found]
    with watch.stage("make parameters"):
        for batches in decoded:
            for segment in batches.segments:
                if segment.operation is Operation.INSERT:
                    deque(copy_blocks(segment), maxlen=0)
                elif segment.operation in (Operation.UPDATE, Operation.DELETE) and not segment.superseded:
                    for column in (*segment.values, *segment.old):
                        text_array(column, segment.rows)
    assert all(verified), "a record does not verify"
    assert found == list(encoded), "what was sealed is not what was opened"


def best(
    workload: Workload, changes: int, repetitions: int, profiled: dict[str, cProfile.Profile]
) -> tuple[dict[str, int], Volume]:
    """The least that each stage took."""
    runs = [run(workload, changes, profiled) for _ in range(repetitions)]
    return {name: min(spent[name] for spent, _ in runs) for name, _ in _STAGES}, runs[0][1]


@click.command()
@click.option("--changes", default=60_000, show_default=True, help="Changes of each workload.")
@click.option("--repetitions", default=3, show_default=True, help="Of which the best counts.")
@click.option(
    "--profile", "stage", type=click.Choice([name for name, role in _STAGES if role]), help="A stage to profile."
)
@click.argument("names", nargs=-1, type=click.Choice([workload.name for workload in WORKLOADS]))
def main(changes: int, repetitions: int, stage: str | None, names: tuple[str, ...]) -> None:
    """Time every stage of the workloads NAMES; default all."""
    chosen = [workload for workload in WORKLOADS if not names or workload.name in names]
    profiled = {stage: cProfile.Profile()} if stage else {}
    found = {workload.name: best(workload, changes, repetitions, profiled) for workload in chosen}
    table = Table(title="CPU, µs a change")
    for heading in ("stage", "role"):
        table.add_column(heading, no_wrap=True)
    for workload in chosen:
        table.add_column(workload.name, justify="right")
    for name, role in _STAGES:
        table.add_row(
            name, role, *(f"{spent[name] / 1000 / volume.changes:.2f}" for spent, volume in found.values())
        )
    table.add_section()
    wholes = {
        name: sum(spent[stage_name] for stage_name, role in _STAGES if role) / 1000 / volume.changes
        for name, (spent, volume) in found.items()
    }
    table.add_row("all", "", *(f"{whole:.2f}" for whole in wholes.values()))
    table.add_section()
    for name in found[chosen[0].name][1].ratios():
        table.add_row(name, "", *(f"{volume.ratios()[name]:,.0f}" for _, volume in found.values()))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    for profile in profiled.values():
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
