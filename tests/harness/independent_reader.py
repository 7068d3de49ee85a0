"""A second reader of the wire format, written from docs/wire-format.md alone: it imports nothing of the product."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import fastavro
import zstandard
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa, mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

_HPKE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_SCHEMAS = Path(__file__).parents[2] / "schemas"


def schema(name: str) -> Any:
    return fastavro.parse_schema(json.loads((_SCHEMAS / f"{name}.avsc").read_text()), named_schemas={})


def datum(name: str, encoded: bytes) -> dict[str, Any]:
    source = io.BytesIO(encoded)
    fields: Any = fastavro.schemaless_reader(source, schema(name), None)
    assert not source.read(), "bytes follow the datum"
    return dict(fields)


def crc64_avro(canonical: bytes) -> bytes:
    empty = 0xC15D213AA4D7A795
    crc = empty
    for byte in canonical:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (empty if crc & 1 else 0)
    return crc.to_bytes(8, "little")


def pae(kind: str, payload: bytes) -> bytes:
    return f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload


def enrolment_of(text: str, operators: dict[bytes, str], threshold: int) -> tuple[dict[str, Any], bytes]:
    """The payload of an enrolment file, proven, and its hash."""
    file = json.loads(text)
    payload = b64decode(file["payload"], validate=True)
    persons = set()
    for entry in file["signatures"]:
        key = bytes.fromhex(entry["key"])
        if key in operators:
            ed25519.Ed25519PublicKey.from_public_bytes(key).verify(
                bytes.fromhex(entry["signature"]), pae("application/vnd.data-embassy.enrolment.v1", payload)
            )
            persons.add(operators[key])
    assert len(persons) >= threshold
    return json.loads(payload), hashlib.sha256(payload).digest()


class IndependentReader:
    """Reads a stream from its first record."""

    def __init__(self, xwing_seed: bytes, enrolment: dict[str, Any], enrolment_hash: bytes) -> None:
        expanded = hashlib.shake_256(xwing_seed).digest(96)
        kem = mlkem.MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
        curve = x25519.X25519PrivateKey.from_private_bytes(expanded[64:])
        self.private = MLKEM768X25519PrivateKey(kem, curve)
        public = kem.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
        self.id = hashlib.sha256(b"data-embassy key id 1\0" + b"recipient" + b"\0" + public).digest()[:8]
        self.enrolment = enrolment
        self.enrolment_hash = enrolment_hash
        self.previous = enrolment_hash
        self.sequence = 0
        self.incarnation = b""
        self.data_key = b""
        self.frame = b""

    def read(self, value: bytes) -> bytes | None:
        """The batch that ends with this record, if one does."""
        canonical = fastavro.schema.to_parsing_canonical_form(schema("sealed_record")).encode()
        assert value[:10] == b"\xc3\x01" + crc64_avro(canonical)
        record = datum("sealed_record", value[10:])
        header = datum("header", record["header"])
        digest = hashlib.sha256(
            b"data-embassy record 1\0"
            + len(record["header"]).to_bytes(4, "big")
            + record["header"]
            + record["body"]
        ).digest()
        self._verify(record["signature"], digest, hybrid=header["kind"] == "KEY")
        self._link(header)
        self.previous, self.sequence = digest, header["sequence"]
        if header["kind"] == "KEY":
            self._unwrap(record, header)
            return None
        self.frame += self._open(record, header)
        if not header["last"]:
            return None
        frame, self.frame = self.frame, b""
        return zstandard.ZstdDecompressor().decompress(frame)

    def _verify(self, signature: bytes, digest: bytes, *, hybrid: bool) -> None:
        message = pae("application/vnd.data-embassy.record.v1", digest)
        keys = {name: bytes.fromhex(key) for name, key in self.enrolment["producer"].items()}
        ed25519.Ed25519PublicKey.from_public_bytes(keys["ed25519"]).verify(signature[:64], message)
        if hybrid:
            mldsa.MLDSA65PublicKey.from_public_bytes(keys["mldsa65"]).verify(signature[64:], message)
        else:
            assert len(signature) == 64

    def _link(self, header: dict[str, Any]) -> None:
        assert header["version"] == 1
        assert header["stream"].hex() == self.enrolment["stream"]
        assert header["epoch"] == self.enrolment["epoch"]
        assert header["previous"] == self.previous
        assert header["sequence"] == self.sequence + 1
        assert header["kind"] == "KEY" or header["incarnation"] == self.incarnation

    def _unwrap(self, record: dict[str, Any], header: dict[str, Any]) -> None:
        body = datum("key_body", record["body"])
        assert body["suite"] == self.enrolment["suite"] == 1
        (sealed,) = (wrap["sealed"] for wrap in body["wraps"] if wrap["recipient"] == self.id)
        info = b"data-embassy wrap 1\0" + record["header"] + self.enrolment_hash + self.id
        self.data_key = _HPKE.decrypt(sealed, self.private, info=info)
        self.incarnation = header["incarnation"]
        assert hmac.compare_digest(self._derived(b"data-embassy commitment 1\0"), body["commitment"])

    def _open(self, record: dict[str, Any], header: dict[str, Any]) -> bytes:
        aead = AESGCMSIV(self._derived(b"data-embassy body key 1\0"))
        nonce = bytes(4) + header["sequence"].to_bytes(8, "big")
        padded = aead.decrypt(nonce, record["body"], record["header"])
        length = int.from_bytes(padded[:4], "big")
        return padded[4 : 4 + length]

    def _derived(self, label: bytes) -> bytes:
        return HKDFExpand(hashes.SHA256(), 32, label + self.incarnation).derive(self.data_key)
