from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embassy.model.errors import ConfigurationError, RefusedError
from embassy.wire import secret_file
from embassy.wire.keyring import (
    generate_identity,
    generate_operator,
    generate_recipient,
    load_identity,
    load_operator,
    load_public_recipient,
    load_recipient,
)
from embassy.wire.passphrase import VARIABLE
from embassy.wire.public_keys import load_public_identity, load_public_operator, public_path

Change = Callable[[dict[str, Any]], object]


def alter(path: Path, change: Change) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def refusal(load: Callable[[Path], object], path: Path) -> str:
    """The message of a refusal, which names the file and a way out."""
    with pytest.raises(ConfigurationError) as refused:
        load(path)
    assert refused.value.place == str(path)
    assert refused.value.hint
    return str(refused.value)


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    path = tmp_path / "home.json"
    generate_identity(path)
    return path


def test_each_kind_of_key_reads_back_and_its_public_half_agrees(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("identity.json", "recipient.json", "operator.json")]
    made = (
        generate_identity(paths[0]),
        generate_recipient(paths[1]),
        generate_operator(paths[2], person="Anna Kļava"),
    )
    assert [files.public for files in made] == [public_path(path) for path in paths]
    assert load_identity(paths[0]).public == load_public_identity(made[0].public)
    assert load_recipient(paths[1]).public == load_public_recipient(made[1].public)
    operator = load_operator(paths[2])
    assert operator.public == load_public_operator(made[2].public)
    assert operator.public.person == "Anna Kļava"
    assert made[0].id == load_public_identity(made[0].public).id
    assert made[1].id == load_public_recipient(made[1].public).id


def test_keys_differ_from_each_other(tmp_path: Path) -> None:
    ids = {generate_recipient(tmp_path / f"{number}.json").id for number in range(5)}
    assert len(ids) == 5


def test_only_the_owner_may_read_a_secret_file_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = generate_identity(tmp_path / "home.json")
    finally:
        os.umask(before)
    assert made.secret.stat().st_mode & 0o7777 == 0o600
    assert made.public.stat().st_mode & 0o7777 == 0o644
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home.json", "home.pub.json"]


def test_a_public_file_holds_no_secret(tmp_path: Path) -> None:
    made = generate_identity(tmp_path / "home.json")
    document = json.loads(made.secret.read_text())
    public = made.public.read_text()
    assert "secret" not in json.loads(public)
    assert not any(seed in public for seed in document["secret"].values())


def test_a_key_is_never_overwritten(tmp_path: Path, identity: Path) -> None:
    before = identity.read_bytes()
    with pytest.raises(RefusedError, match="never overwritten"):
        generate_identity(identity)
    public_path(identity).unlink()
    with pytest.raises(RefusedError, match="never overwritten"):
        generate_recipient(identity)
    assert identity.read_bytes() == before
    generate_recipient(tmp_path / "other.json")
    (tmp_path / "other.json").unlink()
    with pytest.raises(RefusedError, match="public file exists"):
        generate_recipient(tmp_path / "other.json")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file or directory") as refused:
        generate_recipient(tmp_path / "none" / "key.json")
    assert refused.value.place.endswith("none/key.json")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o644, 0o777])
def test_a_secret_file_that_others_may_touch_is_refused(identity: Path, mode: int) -> None:
    identity.chmod(mode)
    message = refusal(load_identity, identity)
    assert f"its mode is {mode:04o}" in message
    assert f"chmod 600 {identity}" in message


def test_a_secret_file_that_its_owner_may_only_read_is_fine(identity: Path) -> None:
    identity.chmod(0o400)
    load_identity(identity)


def test_a_link_to_a_secret_file_is_refused(tmp_path: Path, identity: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(identity)
    message = refusal(load_identity, link)
    assert "is a symbolic link" in message
    assert "name the file itself" in message


def test_a_pipe_or_a_folder_in_the_place_of_a_secret_file_is_refused_without_waiting(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    assert "not a regular file" in refusal(load_identity, pipe)
    assert "not a regular file" in refusal(load_identity, tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users_secret_file_is_refused(identity: Path) -> None:
    os.chown(identity, 12345, -1)
    message = refusal(load_identity, identity)
    assert "belongs to user 12345" in message
    assert f"chown 0 {identity}" in message


@pytest.mark.skipif(os.geteuid() != 0, reason="the file has to be root's")
@pytest.mark.parametrize(("mode", "fine"), [(0o440, True), (0o400, True), (0o444, False), (0o460, False)])
def test_a_credential_of_systemd_is_roots_and_readable_by_one_user(
    monkeypatch: pytest.MonkeyPatch, identity: Path, mode: int, *, fine: bool
) -> None:
    identity.chmod(mode)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    if fine:
        load_identity(identity)
    else:
        assert "can be read or changed by others" in refusal(load_identity, identity)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    assert "No such file or directory" in refusal(load_identity, path)
    assert "No such file or directory" in refusal(load_public_recipient, path)


def test_another_kind_of_key_is_refused(tmp_path: Path, identity: Path) -> None:
    assert "of another kind: 'identity', not 'recipient'" in refusal(load_recipient, identity)
    assert "of another kind: 'identity', not 'operator'" in refusal(load_operator, identity)
    assert "not 'operator'" in refusal(load_public_operator, public_path(identity))


def test_a_public_file_in_the_place_of_a_secret_one_is_refused_and_the_reverse(identity: Path) -> None:
    public = public_path(identity)
    public.chmod(0o600)
    assert "public identity key file; the secret one belongs here" in refusal(load_identity, public)
    message = refusal(load_public_identity, identity)
    assert "secret identity key file; a public one belongs here" in message
    assert "home.pub.json" in message


@pytest.mark.parametrize(
    "text", ["", "garbage", "[]", "{}", "\xff", '{"format": "data-embassy key 2"}', "[" * 9999]
)
def test_what_is_no_key_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key.json"
    path.touch(0o600)
    path.write_bytes(text.encode("latin-1"))
    refusal(load_identity, path)
    refusal(load_public_identity, path)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.touch(0o600)
    os.truncate(path, 1 << 30)
    assert "too large" in refusal(load_identity, path)
    assert "too large" in refusal(load_public_identity, path)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["secret"].update(ed25519="00" * 32),
        lambda d: d["secret"].update(mldsa65="00" * 32),
        lambda d: d["secret"].update(ed25519="00" * 31),
        lambda d: d["secret"].update(ed25519=7),
        lambda d: d["secret"].update(more="00"),
        lambda d: d["secret"].pop("ed25519"),
        lambda d: d.update(secret="00"),
        lambda d: d["public"].update(ed25519="00" * 32),
        lambda d: d["public"].update(ed25519="zz"),
        lambda d: d["public"].pop("mldsa65"),
        lambda d: d.update(public=[]),
        lambda d: d.update(id="00" * 8),
        lambda d: d.pop("id"),
        lambda d: d.update(person="Anna"),
        lambda d: d.update(note="x"),
    ],
)
def test_a_damaged_key_file_is_refused(identity: Path, change: Change) -> None:
    alter(identity, change)
    assert "damaged" in refusal(load_identity, identity)


def test_a_name_that_stands_twice_is_refused(identity: Path) -> None:
    identity.write_text(identity.read_text().replace('"kind"', '"kind": "operator", "kind"', 1))
    assert "a name stands twice" in refusal(load_identity, identity)


@pytest.mark.parametrize("person", ["", " Anna", "Anna\n", "x" * 101, "An\x1bna"])
def test_a_person_has_a_printable_name(tmp_path: Path, person: str) -> None:
    with pytest.raises(ConfigurationError, match="not a person's name"):
        generate_operator(tmp_path / "key.json", person=person)
    assert not list(tmp_path.iterdir())


def test_a_key_under_a_passphrase_opens_with_it_and_with_no_other(tmp_path: Path) -> None:
    path = tmp_path / "anna.json"
    made = generate_operator(path, person="Anna", phrase=b"correct horse")
    assert load_operator(path, lambda: b"correct horse").public == load_public_operator(made.public)
    assert "the passphrase is wrong" in refusal(lambda p: load_operator(p, lambda: b"battery staple"), path)
    message = refusal(load_operator, path)
    assert "needs a passphrase" in message
    assert VARIABLE in message


def test_a_passphrase_comes_from_a_file_that_only_its_owner_may_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, phrase = tmp_path / "anna.json", tmp_path / "phrase"
    generate_operator(path, person="Anna", phrase=b"correct horse")
    phrase.touch(0o600)
    phrase.write_text("correct horse\n")
    monkeypatch.setenv(VARIABLE, str(phrase))
    load_operator(path)
    phrase.chmod(0o644)
    with pytest.raises(ConfigurationError, match="passphrase file can be read or changed by others"):
        load_operator(path)


def test_an_empty_passphrase_locks_nothing_and_no_file_is_made(tmp_path: Path) -> None:
    """As of a file that has yet to be filled: the key would look locked, and be open to everybody."""
    with pytest.raises(ConfigurationError, match="the passphrase is empty"):
        generate_operator(tmp_path / "anna.json", person="Anna", phrase=b"")
    assert list(tmp_path.iterdir()) == []


def test_the_locked_secret_of_another_key_is_refused(tmp_path: Path) -> None:
    paths = [tmp_path / "anna.json", tmp_path / "bert.json"]
    for path, person in zip(paths, ("Anna", "Bert"), strict=True):
        generate_operator(path, person=person, phrase=b"same")
    borrowed = json.loads(paths[1].read_text())["secret"]
    alter(paths[0], lambda document: document.update(secret=borrowed))
    assert "passphrase is wrong, or the key file is damaged" in refusal(
        lambda path: load_operator(path, lambda: b"same"), paths[0]
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["secret"]["argon2id"].update(memory_kib=1 << 40),
        lambda d: d["secret"]["argon2id"].update(iterations=0),
        lambda d: d["secret"]["argon2id"].update(lanes="many"),
        lambda d: d["secret"]["argon2id"].pop("salt"),
        lambda d: d["secret"].update(argon2id=7),
        lambda d: d["secret"].update(locked=""),
    ],
)
def test_a_damaged_lock_is_refused(tmp_path: Path, change: Change) -> None:
    path = tmp_path / "anna.json"
    generate_operator(path, person="Anna", phrase=b"x")
    alter(path, change)
    assert "damaged" in refusal(lambda p: load_operator(p, lambda: b"x"), path)


def test_no_key_shows_its_secret(identity: Path) -> None:
    shown = repr(load_identity(identity))
    assert not any(seed in shown for seed in json.loads(identity.read_text())["secret"].values())
    assert "PrivateKey" not in shown


def test_replacing_keeps_the_mode_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "file"
    secret_file.write_new(path, "old", mode=0o600)
    secret_file.replace(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ConfigurationError, match="cannot write the file"):
        secret_file.replace(tmp_path / "none", "x")
