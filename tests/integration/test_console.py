"""The operators' page as a real process, on a whole stream with real roles."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from deploy.lab import role_configs
from deploy.lab.roles import program
from embassy.cli.observing import Observer
from embassy.cli.options import Options
from embassy.model.errors import EmbassyError
from tests.harness.markup import Element, parsed
from tests.harness.pipeline import MakePipeline, Pipeline, poll_until

_SCHEMA = "CREATE TABLE public.deed (id bigint PRIMARY KEY, owner text NOT NULL);"
_SECTIONS = {"console": {"listen": "127.0.0.1:0", "interval_seconds": 0.5}}


class _Page:
    """A console that runs, as a browser sees it."""

    def __init__(self, popen: subprocess.Popen[bytes], address: str, log: Path) -> None:
        self.popen = popen
        self.address = address
        self.log = log

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(self.address, timeout=60)
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text

    def status(self) -> dict[str, Any]:
        code, text = self.get("/api/status")
        found: dict[str, Any] = json.loads(text)
        assert (code == 503) is ("registries" not in found)
        return found

    def shown(self) -> Element:
        code, text = self.get("/")
        assert code == 200
        return parsed(text)

    def headline(self) -> str:
        return self.shown().one("h1").text


@contextmanager
def _console(pipeline: Pipeline) -> Iterator[_Page]:
    file, log = pipeline.folder / "console.address", pipeline.folder / "console.log"
    command = [
        *program(),
        "-c",
        str(pipeline.config("embassy-admin")),
        "console",
        "run",
        "--address-file",
        str(file),
    ]
    with log.open("wb") as output:
        popen = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=dict(os.environ)
        )
    try:
        poll_until(lambda: file.exists() or popen.poll() is not None, "the console listens")
        assert popen.poll() is None, log.read_text()
        yield _Page(popen, file.read_text().strip(), log)
        assert not file.exists(), "it goes with the console"
    finally:
        popen.kill()
        popen.wait(60)


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shape(each) for key, each in value.items()}
    return [_shape(each) for each in value] if isinstance(value, list) else None


def _looks(closing: ExitStack, address: str) -> Iterator[dict[str, Any]]:
    """What a browser hears that listens from now on."""
    connection = http.client.HTTPConnection(address, timeout=60)
    closing.callback(connection.close)
    connection.request("GET", "/events")
    answer = closing.enter_context(connection.getresponse())
    for line in answer:
        if line.startswith(b"data: "):
            yield json.loads(line.removeprefix(b"data: "))


def _refused_to_write(pipeline: Pipeline) -> str:
    """What a replica answers if one writes in the session that the console asks it in."""
    with Observer(Options(pipeline.config("embassy-admin"))) as observer:
        answers = observer.ask_replicas(
            [pipeline.name], lambda _name, connection: connection.execute("DELETE FROM embassy.control")
        )
    assert isinstance(answers[pipeline.name], EmbassyError)
    return str(answers[pipeline.name])


def test_the_page_follows_what_happens_and_ends_when_told_to(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(_SCHEMA, _SECTIONS)
    name = pipeline.name
    pipeline.start_all()
    with _console(pipeline) as page, ExitStack() as closing:
        poll_until(lambda: page.status()["ok"], "all is well")
        done = pipeline.embassy_command("embassy-admin", "status", "--json")
        assert _shape(page.status()) == _shape(json.loads(done.stdout))
        shown = page.shown()
        assert shown.one("h1").text.startswith("✓ 1 of 1 registries are well")
        assert f"{name} ✓ following" in shown.one("section", id="registries").text
        assert "✓ open" in shown.one("section", id="registries").text
        assert "None: no promotion, freeze or failback" in shown.one("section", id="operations").text
        assert page.get("/livez") == (200, "ok\n")
        assert page.get("/", "POST")[0] == 405
        assert page.get("/", Host="evil.example")[0] == 421
        assert "ReadOnlySqlTransaction" in _refused_to_write(pipeline)

        looks = _looks(closing, page.address)
        assert "following" in next(looks)["sections"]["registries"]
        key = str(role_configs.operator(pipeline.lab.layout, "anna"))
        frozen = pipeline.embassy_command("embassy-admin", "freeze", "--reason", "rows <b>vanish", "--key", key)
        assert frozen.returncode == 0, frozen.stderr
        changed = next(look for look in looks if look["changes"])
        assert changed["changes"] == [f"{name}: following → frozen"]
        assert "frozen" in changed["sections"]["registries"]

        shown = page.shown()
        assert "nothing is applied: rows <b>vanish; two persons lift it anna" in (
            shown.one("section", id="operations").text
        )
        assert "✖ blocked the stream is frozen by anna" in shown.one("section", id="registries").text
        assert "freeze ok" in shown.one("section", id="audit").text

        pipeline.lab.site(pipeline.embassy).postgres.kill9()
        poll_until(lambda: bool(page.status().get("problems")), "the replica is missed")
        assert page.status()["registries"][name]["state"] == "unknown"
        shown = page.shown()
        assert not [e for e in shown.every() if e.attributes.get("class", "").split()[-1:] == ["good"]]
        assert "? the replica was not seen" in shown.one("section", id="registries").text

        page.popen.send_signal(signal.SIGINT)
        assert page.popen.wait(60) == 0, page.log.read_text()
        list(looks)  # the stream of events ends too
    assert "Traceback" not in page.log.read_text()
