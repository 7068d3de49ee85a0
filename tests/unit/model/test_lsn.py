from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embassy.model.lsn import Lsn


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_text_form_round_trips(value: int) -> None:
    assert Lsn.parse(str(Lsn(value))) == value


def test_prints_as_postgresql_does() -> None:
    assert str(Lsn(0x16_B374D848)) == "16/B374D848"
    assert repr(Lsn(0)) == "Lsn(0/0)"


@pytest.mark.parametrize(
    "text", ["", "0", "0/", "/0", "0/0/0", "G/0", "0x1/0", " 0/0", "0/0\n", "123456789/0", "-1/0"]
)
def test_malformed_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a log sequence number"):
        Lsn.parse(text)
