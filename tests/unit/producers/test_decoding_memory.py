"""What streams ask their source's server for, to decode in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from producers.decoding_memory import share

_MIB = 1 << 20
_HOSTS = st.sampled_from(["a", "b", "c"])


def _dsn(host: str, number: int, port: int = 5432) -> str:
    return f"host={host} port={port} dbname=registry{number} user=embassy"


def test_a_stream_that_is_alone_with_its_server_gets_the_most() -> None:
    dsns = [_dsn("a", 1), _dsn("b", 2), _dsn("a", 3, port=5433)]
    assert share(dsns[0], dsns, 512 * _MIB) == 256 * _MIB


def test_the_default_port_is_a_port() -> None:
    assert share("host=a dbname=x", ["host=a dbname=x", "host=a port=5432 dbname=y"], 100 * _MIB) == 50 * _MIB


@given(hosts=st.lists(_HOSTS, min_size=1, max_size=40), budget=st.integers(0, 1 << 40))
def test_the_streams_of_a_server_never_ask_for_more_than_its_budget(hosts: list[str], budget: int) -> None:
    dsns = [_dsn(host, number) for number, host in enumerate(hosts)]
    for host in hosts:
        asked = [share(dsn, dsns, budget) for dsn, at in zip(dsns, hosts, strict=True) if at == host]
        assert sum(asked) <= budget
        assert max(asked) <= 256 * _MIB
