from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from embassy.model.errors import ConfigurationError
from embassy.wire import data_key, keyring, selftest, verifying


def _missing(*_arguments: object, **_names: object) -> None:
    raise UnsupportedAlgorithm("not in this build")


class _Lenient:
    """A verifier that accepts anything."""

    @staticmethod
    def from_public_bytes(_key: bytes) -> _Lenient:
        return _Lenient()

    def verify(self, signature: bytes, message: bytes) -> None: ...


class _Strict(_Lenient):
    @staticmethod
    def from_public_bytes(_key: bytes) -> _Strict:
        return _Strict()

    def verify(self, signature: bytes, message: bytes) -> None:
        raise InvalidSignature


def refused(match: str) -> None:
    with pytest.raises(ConfigurationError, match=match) as error:
        selftest.selftest()
    assert "pinned cryptography wheel" in error.value.hint


def test_this_machine_passes() -> None:
    selftest.selftest()
    verifying.selftest()


@pytest.mark.parametrize(
    ("module", "name"), [(selftest, "AESGCMSIV"), (data_key, "AESGCMSIV"), (data_key, "HKDFExpand")]
)
def test_a_missing_algorithm_stops_the_program(monkeypatch: pytest.MonkeyPatch, module: object, name: str) -> None:
    monkeypatch.setattr(module, name, _missing)
    refused("not in this build")


@pytest.mark.parametrize("name", ["MLKEM768PrivateKey", "MLDSA65PrivateKey"])
def test_a_missing_post_quantum_algorithm_stops_the_program(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    class Missing:
        from_seed_bytes = staticmethod(_missing)
        generate = staticmethod(_missing)

    monkeypatch.setattr(keyring, name, Missing)
    refused("not in this build")
    if name == "MLDSA65PrivateKey":
        monkeypatch.setattr(verifying, name, Missing)
        with pytest.raises(ConfigurationError, match="not in this build"):
            verifying.selftest()


@pytest.mark.parametrize(
    ("verifier", "match"), [(_Lenient, "wrong signature was accepted"), (_Strict, "does not work")]
)
def test_a_verifier_that_cannot_tell_stops_the_program(
    monkeypatch: pytest.MonkeyPatch, verifier: type, match: str
) -> None:
    monkeypatch.setattr(verifying, "Ed25519PublicKey", verifier)
    refused(match)


@pytest.mark.parametrize("name", ["_SIV_SEALED", "_XWING_PUBLIC", "_COMMITMENT"])
def test_a_wrong_answer_stops_the_program(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(selftest, name, "00")
    refused("a known answer differs")


def test_a_seal_that_opens_altered_bodies_stops_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_key.DataKey, "open", lambda *_: selftest._SIV_PLAIN)
    refused("a known answer differs")
