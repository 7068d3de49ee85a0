"""What a person who approves an order is shown."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from embassy.cli.options import Options
from embassy.cli.unfreeze import unfreeze
from embassy.wire.approval import Order


def test_what_the_planner_wrote_moves_no_cursor_and_turns_no_words_round(tmp_path: Path) -> None:
    """On a terminal it could stand over what is signed; the same is done by letters that reverse their neighbours."""
    hidden = "case 17\x1b[1A\x1b[2Kland at riga: nothing\u202e"
    stream = {"registry": f"land{hidden}", "stream": "00" * 16, "freeze": 1, "freeze_id": "0" * 32}
    stream |= {"frozen_at": hidden, "frozen_by": hidden, "frozen_because": hidden, "suspect": hidden}
    order = Order.draft(
        "unfreeze",
        {
            "site": f"riga{hidden}",
            "reason": hidden,
            "streams": [stream],
            "at_once": False,
            "stop_at_lsn": None,
            "stop_at_microseconds": None,
            "nonce": "",
            "ordered_at": 0,
            "expires_at": 1,
        },
    )
    path = tmp_path / "order.json"
    path.write_text(order.render())
    arguments = ["approve", str(path), "--key", str(tmp_path / "none")]
    shown = CliRunner().invoke(unfreeze, arguments, obj=Options(), input="n\n", color=True).output
    assert "reason: case 17" in shown
    assert all(letter.isprintable() or letter == "\n" for letter in shown)
