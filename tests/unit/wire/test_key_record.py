from __future__ import annotations

import pytest

from embassy.model.errors import IntegrityError
from embassy.wire.key_record import KeyBody, Wrap, decode_key_body, encode_key_body

BODY = KeyBody(7_400_000_000_000_000_000, 2, 1, b"c" * 32, (Wrap(b"a" * 8, b"one"), Wrap(b"b" * 8, b"two")))


def test_a_key_body_reads_back() -> None:
    assert decode_key_body(encode_key_body(BODY)) == BODY
    assert decode_key_body(encode_key_body(BODY._replace(wraps=()))).wraps == ()


@pytest.mark.parametrize("identifier", [0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_every_system_identifier_fits(identifier: int) -> None:
    body = BODY._replace(system_identifier=identifier, timeline=(1 << 32) - 1)
    assert decode_key_body(encode_key_body(body)) == body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"garbage",
        encode_key_body(BODY)[:-1],
        encode_key_body(BODY) + b"\x00",
        encode_key_body(BODY)[:44] + b"\xff" * 40,
        encode_key_body(BODY._replace(wraps=()))[:-1] + b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f",
        encode_key_body(BODY._replace(wraps=()))[:-1]
        + b"\x02"
        + b"a" * 8
        + b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f",
    ],
)
def test_what_is_no_key_body_is_refused(body: bytes) -> None:
    with pytest.raises(IntegrityError, match="body of a KEY record is malformed"):
        decode_key_body(body)
