from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from embassy.model.errors import ConfigurationError
from embassy.runtime.health import Answers, Check, HealthServer, Listen

LOOPBACK = Listen("127.0.0.1", 0)


@contextmanager
def _serving(
    *checks: Check, address_file: Path | None = None, listen: Listen = LOOPBACK
) -> Iterator[HealthServer]:
    answers = Answers(lambda accept: (f"accepts {accept}".encode(), "text/x"), lambda: checks, lambda: checks)
    server = HealthServer(listen, answers, address_file=address_file)
    try:
        yield server
    finally:
        server.close()


def _get(server: HealthServer, path: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
    request = urllib.request.Request(f"http://{server.address}{path}", headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


GOOD = Check("land", passed=True, text="running")
BAD = Check("people", passed=False, text="halted for 3 s: integrity: record 7 is missing")


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_all_well_is_200(path: str) -> None:
    with _serving(GOOD) as server:
        assert _get(server, path) == (200, "text/plain; charset=utf-8", "ok\n")
        assert _get(server, f"{path}?verbose")[2] == "[+]land running\nok\n"


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_one_stream_that_is_not_well_is_503_and_says_why(path: str) -> None:
    with _serving(GOOD, BAD) as server:
        status, _, text = _get(server, path)
        assert (status, text) == (503, f"[-]people {BAD.text}\n1 of 2 failed\n")
        assert _get(server, f"{path}?verbose")[2].splitlines()[0] == "[+]land running"


def test_metrics_come_in_the_format_that_the_scraper_accepts() -> None:
    with _serving() as server:
        assert _get(server, "/metrics", Accept="application/openmetrics-text") == (
            200,
            "text/x",
            "accepts application/openmetrics-text",
        )


def test_anything_else_is_refused() -> None:
    with _serving(GOOD) as server:
        assert _get(server, "/")[0] == 404
        assert _get(server, "/metrics/x")[0] == 404
        assert _get(server, "/livez", method="POST")[0] == 501
        assert _get(server, "/livez", method="HEAD") == (200, "text/plain; charset=utf-8", "")


def test_the_address_is_in_the_file_while_it_is_served(tmp_path: Path) -> None:
    file = tmp_path / "address"
    with _serving(GOOD, address_file=file) as server:
        assert file.read_text() == f"127.0.0.1:{server.address.port}\n"
        assert server.address.port != 0
    assert list(tmp_path.iterdir()) == []


def test_a_port_in_use_is_a_clear_error() -> None:
    with (
        _serving(GOOD) as server,
        pytest.raises(ConfigurationError, match=r"cannot listen at 127\.0\.0\.1:.*in use") as caught,
        _serving(GOOD, listen=server.address),
    ):
        pass
    assert caught.value.place == "metrics.listen"


def test_an_address_file_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigurationError, match="cannot write the address"),
        _serving(GOOD, address_file=tmp_path / "missing" / "address"),
    ):
        pass


def test_a_client_that_hangs_up_or_says_nothing_does_not_stop_the_others() -> None:
    with _serving(GOOD) as server:
        silent = socket.create_connection(server.address, timeout=10)
        rude = socket.create_connection(server.address, timeout=10)
        rude.sendall(b"GET /readyz HTTP/1.1\r\n")
        rude.close()
        assert _get(server, "/readyz")[0] == 200
        silent.close()


def test_ipv6() -> None:
    listen = Listen.parse("[::1]:0")
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with _serving(GOOD, listen=listen) as server:
        assert str(server.address).startswith("[::1]:")
        assert _get(server, "/readyz")[0] == 200


@pytest.mark.parametrize(
    "text", ["", "9464", "localhost", "localhost:", "localhost:http", "::1:9464", "h:70000", "h:²"]
)
def test_what_is_not_an_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        Listen.parse(text)
