from __future__ import annotations

from pathlib import Path

import pytest

from embassy.model.errors import ConfigurationError
from embassy.runtime import config
from embassy.runtime.console_config import Console
from embassy.runtime.health import Listen

_TLS = {name: Path(f"{name}.pem") for name in ("certificate", "key", "client_ca")}


@pytest.mark.parametrize("listen", ["127.0.0.1:8470", "127.8.0.1:0", "localhost:1", "[::1]:8470"])
def test_loopback_needs_no_certificate(listen: str) -> None:
    assert Console(listen=listen).address() == Listen.parse(listen)
    assert "localhost" in Console(listen=listen).known_hosts()


@pytest.mark.parametrize("listen", ["0.0.0.0:8470", "[::]:8470", "10.0.0.7:8470", "console.example:8470"])
def test_elsewhere_is_refused_unless_whoever_asks_has_to_show_a_certificate(listen: str) -> None:
    with pytest.raises(ConfigurationError, match="can be reached from elsewhere") as caught:
        Console(listen=listen).address()
    assert (caught.value.place, "127.0.0.1" in caught.value.hint) == ("console.listen", True)
    console = Console(listen=listen, hosts=("Console.Example",), **_TLS)
    assert console.address() == Listen.parse(listen)
    assert "console.example" in console.known_hosts()
    assert "localhost" not in console.known_hosts()


@pytest.mark.parametrize("missing", sorted(_TLS))
def test_certificates_are_all_there_or_none_is(missing: str) -> None:
    some = {name: path for name, path in _TLS.items() if name != missing}
    with pytest.raises(ConfigurationError, match="not all set"):
        Console(**some).address()


def test_it_is_a_section_of_the_file_whose_paths_are_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "embassy.toml"
    path.write_text(
        'site = "embassy-1"\n[console]\nlisten = "10.0.0.7:8470"\n'
        'certificate = "c.pem"\nkey = "c.key"\nclient_ca = "a.pem"\n'
    )
    tls = config.load(path).console.tls()
    assert tls is not None
    assert tls.key == tmp_path / "c.key"
    path.write_text('site = "embassy-1"\n[console]\nport = 8470\n')
    with pytest.raises(ConfigurationError, match=r"console\.port: unknown key"):
        config.load(path)
