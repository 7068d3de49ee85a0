"""What a lab is asked for, and what it refuses; no server is started."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from deploy.lab.account import Account, remove_sheltered, sheltered
from deploy.lab.daemons import running_with, spawn
from deploy.lab.plan import Wish, planned
from deploy.lab.ports import free_port, is_free
from deploy.lab.registries_file import default_registries_file, read_registries
from deploy.lab.state import StateFile
from deploy.lab.waiting import Patience
from embassy.model.errors import ConfigurationError, RefusedError
from tests.harness.lab import lab_folder, write_registries


def test_the_default_registries_are_the_ten_of_the_demo() -> None:
    registries = read_registries(default_registries_file())
    assert len(registries) == 10
    assert all(registry.title and registry.schema_file for registry in registries.values())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "registries: Field required"),
        ("[registries]", "at least 1 item"),
        ("[registries.Upper]", "should match pattern"),
        ("[registries.postgres]", "a database of PostgreSQL itself"),
        ("[registries.a]\ntitel = 'x'", "registries.a.titel: Extra inputs are not permitted"),
        ("[registries.a]\nschema = 'none.sql'", "schema file does not exist"),
        ("[registries.a", "not valid TOML"),
    ],
)
def test_a_wrong_registries_file_is_refused_with_its_place(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "registries.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=complaint) as refused:
        read_registries(file)
    assert str(file) in refused.value.place


def test_a_new_lab_has_distinct_ports_and_secret_names(tmp_path: Path) -> None:
    file = write_registries(tmp_path, "alpha", "beta")
    state = planned(None, Wish(registries=file, embassies=3, postgres="16"), "someone")
    assert list(state.sites) == ["home", "embassy-1", "embassy-2", "embassy-3"]
    ports = [port for site in state.sites.values() for port in (*site.kafka.ports, *site.postgres.ports)]
    assert len(set(ports)) == len(ports) == 12
    streams = {registry.stream for registry in state.registries.values()}
    assert len(streams) == 2
    assert all(len(bytes.fromhex(stream)) == 16 for stream in streams)


def test_a_lab_grows_and_never_loses(tmp_path: Path) -> None:
    before = planned(None, Wish(registries=write_registries(tmp_path, "alpha", "beta")), "someone")
    grown = planned(before, Wish(write_registries(tmp_path, "alpha", "beta", "gamma"), embassies=2), "someone")
    assert grown.sites["home"] == before.sites["home"]
    assert {name: grown.registries[name] for name in before.registries} == before.registries
    assert planned(grown, Wish(), "someone") == grown
    refusals = {
        "beta, gamma": (Wish(registries=write_registries(tmp_path, "alpha")), "someone"),
        "2 embassies, not 1": (Wish(embassies=1), "someone"),
        "PostgreSQL 18, not 17": (Wish(postgres="17"), "someone"),
        "not as 'another'": (Wish(), "another"),
    }
    for complaint, (wish, account) in refusals.items():
        with pytest.raises(RefusedError, match=complaint):
            planned(grown, wish, account)


@pytest.mark.parametrize("wish", [Wish(postgres="14"), Wish(embassies=0), Wish(embassies=10)])
def test_what_cannot_be_had_is_refused(wish: Wish) -> None:
    with pytest.raises(ConfigurationError, match="choose"):
        planned(None, wish, "someone")


def test_the_state_survives_on_disk_and_a_foreign_one_is_named(tmp_path: Path) -> None:
    state = planned(None, Wish(registries=write_registries(tmp_path, "alpha")), "someone")
    file = StateFile(tmp_path / "state.json")
    assert file.read() is None
    file.write(state)
    assert file.read() == state
    file.path.write_text('{"version": 2}')
    with pytest.raises(ConfigurationError, match="another version"):
        file.read()


def test_ports_are_out_of_the_range_of_outgoing_connections() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    port = free_port(())
    assert is_free(port)
    assert port < first


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can lock its servers' account out")
def test_a_folder_that_the_servers_cannot_enter_moves_and_leaves_a_link() -> None:
    account = Account.for_servers()
    with lab_folder() as private:
        private.chmod(0o700)
        link = private / "sites"
        link.mkdir()
        (link / "kept").touch()
        real = sheltered(link, account)
        try:
            assert link.is_symlink()
            assert real != link
            assert account.reaches(real)
            assert (real / "kept").is_file()
            assert sheltered(link, account) == real
        finally:
            remove_sheltered(link)
        assert not real.exists()
        assert not link.is_symlink()


def test_a_server_is_known_by_its_command_line_and_a_shell_beside_it_is_left_alone() -> None:
    with lab_folder() as folder:
        account = Account.for_servers()
        account.own(folder)
        limit = f"60.{os.getpid()}"
        server = spawn(["sleep", limit], account=account, folder=folder, log=folder / "log")
        beside = subprocess.Popen(["cat"], cwd=folder, stdin=subprocess.PIPE)
        try:
            assert running_with("sleep", limit) == server
            server.cut_power(Patience())
            assert not server.alive
            assert beside.poll() is None
        finally:
            beside.communicate()
