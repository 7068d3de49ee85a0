"""Every key of a stream is replaced while transactions go through it, and no role is restarted."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deploy.lab import role_configs
from embassy.cli.key_standing import KeyStanding, key_standing
from embassy.runtime import config
from embassy.runtime.audit_chain import read_entries
from embassy.wire.keyring import load_operator
from embassy.wire.roster import RosterFile
from tests.harness.meanwhile import meanwhile
from tests.harness.pipeline import MakePipeline, Pipeline, RoleProcess, poll_until

_SCHEMA = "CREATE TABLE public.deed (id bigint PRIMARY KEY, owner text NOT NULL);"


class Keys:
    """Folders of keys that the roles' configurations name, beginning with the lab's."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        layout, embassy = pipeline.lab.layout, pipeline.embassy
        self.identities, self.public, self.secret = (
            pipeline.folder / name for name in ("ids", "public", "secret")
        )
        for folder in (self.identities, self.public, self.secret):
            folder.mkdir(mode=0o700)
        shutil.copy(role_configs.identity(layout), self.identities / "first.json")
        shutil.copy(role_configs.recipient(layout, embassy), self.secret / "first.json")
        first = role_configs.public(role_configs.recipient(layout, embassy))
        shutil.copy(first, self.public / "first.pub.json")
        operators = [role_configs.operator(layout, person) for person in role_configs.OPERATORS]
        self.operators = [str(path) for path in operators]
        people = [load_operator(path) for path in operators]
        document = RosterFile.begin([person.public for person in people], role_configs.THRESHOLD)
        for person in people:
            document = document.signed(person)
        (pipeline.folder / "roster.json").write_text(document.render())
        roster = {
            "operators": [str(pipeline.folder / "roster.json")],
            "threshold": role_configs.THRESHOLD,
        }
        own: dict[str, dict[str, Any]] = {
            "producer": {"identity": [str(self.identities)], "recipients": [str(self.public)]},
            "consumer": {"recipient": str(self.secret)},
        }
        for role, files in own.items():
            path = pipeline.config(role)
            content = tomllib.loads(path.read_text(encoding="utf-8"))
            content["keys"] = {**files, **roster}
            role_configs._write(path, content)

    def standing(self) -> KeyStanding:
        settings = config.load(self.pipeline.config("producer"))
        found = key_standing(settings, settings.streams[self.pipeline.name])
        assert found is not None
        return found

    def command(self, role: str, *arguments: str, code: int = 0, json_: bool = False) -> str:
        done = self.pipeline.embassy_command(role, *(["--json"] if json_ else []), "keys", *arguments)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


def reload(*roles: RoleProcess) -> None:
    for role in roles:
        before = sum("reloading" in event.get("event", "") for event in role.events)
        role.popen.send_signal(signal.SIGHUP)
        poll_until(
            lambda role=role, before=before: sum("reloading" in e.get("event", "") for e in role.events) > before,  # type: ignore[misc]
            "it reads its keys again",
        )
        assert not [event for event in role.events if "reload refused" in event.get("event", "")], role.tail()


@contextmanager
def traffic(pipeline: Pipeline) -> Iterator[None]:
    """A transaction every few milliseconds."""

    def write(done: threading.Event) -> None:
        with pipeline.source() as connection:
            number = 0
            while not done.wait(0.02):
                number += 1
                connection.execute("INSERT INTO public.deed VALUES (%s, %s)", (number, f"owner {number}"))

    with meanwhile(write):
        yield


def arrived(pipeline: Pipeline) -> None:
    """What is committed now gets to the replica, while more is committed."""
    with pipeline.source() as connection:
        (newest,) = connection.execute("SELECT coalesce(max(id), 0) FROM public.deed").fetchone() or (0,)
    pipeline.wait_replica(f"SELECT count(*) > 0 FROM public.deed WHERE id > {newest}", value=True)


def ids(folder: Path, kind: str = "*.pub.json") -> set[str]:
    return {path.name.split(".")[0] for path in folder.glob(kind)}


def test_data_recipient_and_identity_keys_are_replaced_while_the_stream_runs(  # noqa: PLR0915 - one long story
    make_pipeline: MakePipeline,
) -> None:
    pipeline = make_pipeline(_SCHEMA)
    keys = Keys(pipeline)
    roles = pipeline.start_all()
    producer, bridge, consumer = roles["producer"], roles["bridge"], roles["consumer"]
    with traffic(pipeline):
        arrived(pipeline)
        first = keys.standing()
        # a fresh data key at once
        said = keys.command("home-admin", "rotate", "data")
        assert keys.standing().incarnation.hex()[:8] in said
        assert keys.standing().incarnation != first.incarnation
        # the embassy's recipient key
        keys.command("consumer", "rotate", "recipient")
        (fresh,) = ids(keys.secret) or {""}
        reload(consumer)
        old = first.recipients[0].hex()
        assert "for none that remains" in keys.command("consumer", "retire", old[:8], code=5)
        keys.command("producer", "announce", str(keys.secret / f"{fresh}.pub.json"))
        assert "announced" in keys.command("producer", "list", "--topics", "--json")
        assert "for none that remains" in keys.command("producer", "retire", old[:8], code=5)
        reload(producer)
        poll_until(lambda: len(keys.standing().recipients) == 2, "wrapped for both")
        assert json.loads(keys.command("producer", "retire", old[:8], json_=True))["id"] == old
        reload(producer)
        poll_until(lambda: len(keys.standing().recipients) == 1, "wrapped for the new one only")
        arrived(pipeline)
        keys.command("consumer", "retire", old[:8])
        reload(consumer)
        assert "active 1/1" in keys.command("consumer", "list", "--topics", "--json")
        # the producer's identity: readers first
        keys.command("producer", "rotate", "identity")
        enrolment = str(role_configs.enrolment(pipeline.lab.layout, pipeline.stream))
        for operator in keys.operators:
            keys.command("home-admin", "sign", enrolment, "--key", operator, "--yes")
        reload(bridge)
        assert keys.standing().generation == 1
        reload(producer)
        poll_until(lambda: keys.standing().generation == 2, "the successor writes")
        reload(consumer)  # it was forgotten: it stayed where it was, and reads again from there
        arrived(pipeline)
        begun = json.loads(keys.command("home-admin", "rotate", "data", json_=True))["streams"][pipeline.name]
        assert begun["data_key"] == keys.standing().incarnation.hex()
    pipeline.wait_level()
    assert [role.popen.poll() for role in (producer, bridge, consumer)] == [None, None, None], "none was restarted"
    # and from then on the old identity is good for nothing
    for role in (producer, bridge, consumer):
        pipeline.kill(role)
    (keys.identities / "first.json").rename(pipeline.folder / "first.json")
    newest = next(path for path in keys.identities.glob("identity-*.json") if ".pub." not in path.name)
    newest.rename(pipeline.folder / "newest.json")
    shutil.copy(pipeline.folder / "first.json", keys.identities / "first.json")
    stale = pipeline.start("producer")
    assert stale.exit_code() == 5, stale.tail()
    assert "has taken over" in stale.tail()
    (keys.identities / "first.json").unlink()
    (pipeline.folder / "newest.json").rename(newest)
    pipeline.start_all()
    with pipeline.source() as connection:
        connection.execute("INSERT INTO public.deed VALUES (-1, 'after')")
    pipeline.wait_level()
    outcomes = {(e.action, e.outcome) for e in read_entries(pipeline.folder / "audit.jsonl")}
    assert {("key.load", "ok"), ("stream.halt", "refused")} <= outcomes, "what services did by themselves"
    assert {("keys.retire", "refused"), ("keys.retire", "ok"), ("keys.rotate-identity", "ok")} <= outcomes


def test_a_reload_that_cannot_be_changes_nothing(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(_SCHEMA)
    keys = Keys(pipeline)
    roles = pipeline.start_all()
    pipeline.wait_level()
    (keys.secret / "first.json").chmod(0o644)
    for path in keys.public.iterdir():
        path.write_text("{}")
    for role in (roles["producer"], roles["consumer"]):
        os.kill(role.popen.pid, signal.SIGHUP)
        poll_until(
            lambda role=role: any("reload refused" in event.get("event", "") for event in role.events),  # type: ignore[misc]
            "the refusal is told",
        )
    with pipeline.source() as connection, contextlib.closing(connection):
        connection.execute("INSERT INTO public.deed VALUES (1, 'x')")
    pipeline.wait_level()
