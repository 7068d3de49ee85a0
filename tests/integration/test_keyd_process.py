"""A consumer whose recipient key another process holds, which dies and comes back; and where no secret may be."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deploy.lab import role_configs
from deploy.lab.roles import program
from embassy.runtime.audit_chain import read_entries, verify
from tests.harness.pipeline import MakePipeline, Pipeline, RoleProcess, poll_until

_SCHEMA = "CREATE TABLE public.deed (id bigint PRIMARY KEY, owner text NOT NULL);"


class Keyd:
    """A keyd process for one pipeline's consumer."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.socket = pipeline.lab.layout.home / f"keyd-{pipeline.stream[:8]}"  # a socket's path must be short
        self.config = pipeline.folder / "keyd.toml"
        recipient = role_configs.recipient(pipeline.lab.layout, pipeline.embassy)
        section = {"socket": str(self.socket)}
        content: dict[str, Any] = {
            "site": "riga",
            "keys": {"recipient": str(recipient)},
            "keyd": section,
            "audit": {"file": str(pipeline.folder / "keyd.jsonl")},
        }
        role_configs._write(self.config, content)
        path = pipeline.config("consumer")
        consumer = tomllib.loads(path.read_text(encoding="utf-8"))
        del consumer["keys"]["recipient"]
        role_configs._write(path, {**consumer, "keyd": section})

    @contextmanager
    def running(self, log: Path) -> Iterator[subprocess.Popen[bytes]]:
        with log.open("wb") as output:
            command = [*program(), "-c", str(self.config), "--log-level", "debug", "keyd", "run"]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            poll_until(lambda: b'"started"' in log.read_bytes() or process.poll() is not None, "keyd listens")
            yield process
        finally:
            process.kill()
            process.wait()


def commit(pipeline: Pipeline, first: int) -> None:
    with pipeline.source() as connection:
        for number in range(first, first + 20):
            connection.execute("INSERT INTO public.deed VALUES (%s, %s)", (number, f"owner {number}"))


def forms(seed: bytes) -> list[bytes]:
    """How a secret might be written."""
    return [seed, seed.hex().encode(), seed.hex().upper().encode(), base64.b64encode(seed)]


def secrets_of(pipeline: Pipeline) -> list[bytes]:
    """Every seed in the lab's key files."""
    found = []
    for path in pipeline.lab.layout.keys.glob("*.json"):
        secret = json.loads(path.read_text(encoding="utf-8")).get("secret", {})
        found += [form for seed in secret.values() for form in forms(bytes.fromhex(seed))]
    assert len(found) >= 12
    return found


def shown_by(pid: int) -> Iterator[bytes]:
    """What others may read of a process: its arguments and its environment."""
    for name in ("cmdline", "environ"):
        with contextlib.suppress(PermissionError):  # hardened: nobody but root may
            yield Path(f"/proc/{pid}/{name}").read_bytes()


def metrics_of(role: RoleProcess) -> bytes:
    address = next(event["metrics"] for event in role.events if event.get("event") == "started")
    with urllib.request.urlopen(address, timeout=10) as answer:
        body: bytes = answer.read()
    return body


def test_keyd_dies_and_comes_back_nothing_is_lost_and_no_secret_is_anywhere(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(_SCHEMA)
    keyd = Keyd(pipeline)
    seen: list[bytes] = []
    producer, bridge = pipeline.start("producer"), pipeline.start("bridge")
    log = pipeline.folder / "keyd-0.log"
    with keyd.running(log) as process:
        consumer = pipeline.start("consumer", EMBASSY_LOG_LEVEL="debug")
        commit(pipeline, 1)
        pipeline.wait_level()
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        assert [line.split()[4:6] for line in limits.splitlines() if "core file" in line] == [["0", "0"]]
        for pid in (process.pid, producer.popen.pid, consumer.popen.pid, bridge.popen.pid):
            seen += shown_by(pid)
    # keyd was killed: what comes under the present data key goes on, and the next one is waited for
    commit(pipeline, 101)
    pipeline.wait_level()
    assert pipeline.embassy_command("home-admin", "keys", "rotate", "data").returncode == 0
    commit(pipeline, 201)
    poll_until(lambda: "keyd does not answer" in consumer.tail(), "the consumer says what it waits for")
    assert pipeline.alive(consumer)
    with keyd.running(pipeline.folder / "keyd-1.log"):
        pipeline.wait_level()
        seen += [metrics_of(role) for role in (producer, bridge, consumer)]
    entries = list(read_entries(pipeline.folder / "keyd.jsonl"))
    assert {(entry.action, entry.outcome) for entry in entries} == {("key.unwrap", "ok")}
    assert verify(pipeline.folder / "keyd.jsonl").entries == len(entries) >= 2
    pipeline.stop(consumer)
    seen += [path.read_bytes() for path in pipeline.folder.iterdir() if path.is_file()]
    assert not [secret for secret in secrets_of(pipeline) for text in seen if secret in text]
