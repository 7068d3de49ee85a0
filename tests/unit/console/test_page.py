"""What the page says of a look, and what it never says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from console.history import History
from console.page import SECTIONS, Page, Renderer
from console.seen import AuditSeen, Desk, Operation, Seen
from embassy.model.errors import TransientError
from embassy.model.health import State
from embassy.model.look import Problem
from embassy.model.observation import ControlSeen, Side, VerifiedSeen
from embassy.runtime.audit_line import AuditEntry
from tests.harness.console_looks import OPEN, look_of, seen_of
from tests.harness.markup import Element, parsed
from tests.harness.observations import EMBASSY, HOME, NOTHING, NOW, PROGRESS, REPLICA, STALLED, well

RENDERER = Renderer()
_DOWN = Problem(
    Side.REPLICA, "people", TransientError("refused", place="admin@localhost:1/people", hint="is it up?")
)
_HOSTILE = "<script>alert(1)</script>\" onload='x' {{ 7*7 }}"


def _page(seen: Seen) -> Page:
    history = History()
    history.take(seen.look)
    return RENDERER.page(seen, history)


def _document(seen: Seen, *, stale: bool = False) -> Element:
    return parsed(RENDERER.whole(_page(seen), site="embassy-1", stale=stale))


def _cells(document: Element, section: str = "registries") -> dict[str, list[str]]:
    """By registry: its state, RPO≤ of its target, lag, verified, epoch, gate, what is amiss."""
    rows = document.one("section", id=section).every("tr")
    return {
        row.one("th", scope="row").text: [cell.text.removesuffix("STALE").strip() for cell in row.every("td")]
        for row in rows
        if list(row.every("td"))
    }


def _greens(document: Element) -> list[str]:
    return [e.text for e in document.every() if "good" in e.attributes.get("class", "").split()]


def test_a_stream_that_is_well_is_told_with_all_its_figures() -> None:
    verified = REPLICA._replace(verified=VerifiedSeen(NOW - 840, "match", 0))
    document = _document(seen_of({"land": well(EMBASSY)._replace(replica=verified)}))
    assert document.one("h1").text.startswith("✓ 1 of 1 registries are well")
    assert _cells(document)["land"] == [
        "✓ following",
        "1.9s of 1m00s",
        "600ms",
        "14m00s OK",
        "1",
        "✓ open",
        "nothing",
    ]
    assert "Data as of 08:00:00Z UTC, seen from embassy-1 , which sees foreign Kafka, replica." in document.text
    assert document.one("title").text == "✓ 1 of 1 well | embassy-1"


def test_a_stalled_one_stands_first_and_says_where_to_look_and_what_to_type() -> None:
    document = _document(seen_of({"land": well(EMBASSY), "people": STALLED}))
    assert list(_cells(document)) == ["people", "land"]
    people = _cells(document)["people"]
    assert people[:3] == ["✖ stalled", "▲ 19m05s of 1m00s , above the target", "?"]
    assert people[5].startswith("▲ open, loses 19m05s")
    assert "no heartbeat since 07:40:56Z (bridge)" in people[6]
    assert "→" in people[6]
    assert document.one("h1").text.startswith("✖ 1 of 2 registries are not well: 1 stalled")
    assert "Look first at: bridge (people)" in document.text
    bridged = _cells(document, "pipeline")["people"][3]
    assert bridged.endswith("✖ look here first")


def test_what_is_not_known_is_a_question_mark_and_never_green_or_nothing() -> None:
    document = _document(seen_of({"people": NOTHING}, _DOWN, desks={"people": "the replica was not seen"}))
    cells = _cells(document)["people"]
    assert cells[0] == "? unknown"
    assert [cells[i] for i in (1, 2, 3, 6)] == ["? of 1m00s", "?", "?", "?"]
    assert cells[5] == "? the replica was not seen"
    assert set(_cells(document, "pipeline")["people"]) == {"?"}
    assert _greens(document) == []
    assert "replica of people : refused [admin@localhost:1/people] → is it up?" in document.text
    assert document.one("h1").text.startswith("? ")
    assert "Not known of people." in document.one("section", id="operations").text


def test_a_home_without_replicas_does_not_claim_that_all_is_well() -> None:
    document = _document(seen_of({"land": well(HOME)}, desks={}))
    assert document.one("h1").attributes["class"] == "doubtful"
    assert "their replicas cannot" in document.one("h1").text
    assert _cells(document)["land"][5] == "? the replica cannot be seen from here"


def test_a_place_that_did_not_answer_takes_the_green_from_the_headline() -> None:
    document = _document(seen_of({"land": well(EMBASSY)}, Problem(Side.HOME, "", TransientError("no broker"))))
    assert document.one("h1").attributes["class"] == "unknown"


@pytest.mark.parametrize("state", State)
def test_every_state_has_a_word_and_a_sign_and_only_healthy_ones_are_green(state: State) -> None:
    seen = seen_of({"land": well(EMBASSY)})
    (entry,) = seen.look.streams
    spoiled = seen.look._replace(streams=(entry._replace(health=entry.health._replace(state=state)),))
    document = _document(seen._replace(look=spoiled))
    (cell,) = (e for e in document.every("td") if "state" in e.attributes.get("class", "").split())
    sign, word = cell.text.split()[:2]
    assert (sign in "✓▲✖?", word) == (True, state.value)
    assert ("good" in cell.attributes["class"]) is state.healthy
    assert ("good" in document.one("h1").attributes["class"]) is state.healthy


def test_a_command_can_be_copied_and_what_else_is_to_be_done_stands_beside_it() -> None:
    promoting = REPLICA._replace(progress=PROGRESS._replace(epoch=2, opening=True))
    document = _document(seen_of({"land": well(EMBASSY)._replace(replica=promoting)}))
    (cell,) = (e for e in document.every("td") if e.attributes.get("class") == "next")
    assert cell.one("code").text == "embassy -c admin.toml -r land promote status"
    assert cell.text.endswith("; if no run is at it, run the same plan again")


def test_what_is_not_seen_for_one_reason_is_told_once() -> None:
    problems = [Problem(Side.REPLICA, name, TransientError("refused", place=name)) for name in ("people", "land")]
    document = _document(seen_of({"land": NOTHING, "people": NOTHING}, *problems, desks={}))
    (told,) = document.one("ul").every("li")
    assert told.text == "? replica of land, people : refused"
    assert document.one("h1").text.startswith("? 2 of 2 registries are not known to be well")


def test_an_open_operation_is_told_with_who_signed_it_and_what_goes_on() -> None:
    command = "embassy -c admin.toml -r land unfreeze plan"
    freeze = Operation("land", "freeze", NOW - 60, "rows vanish", ("anna",), command)
    control = ControlSeen(NOW - 60, "anna", "rows vanish", 0)
    frozen = well(EMBASSY)._replace(replica=REPLICA._replace(control=control))
    desk = Desk(("the stream is frozen by anna",), (freeze,))
    document = _document(seen_of({"land": frozen}, desks={"land": desk}))
    told = document.one("section", id="operations").text
    assert f"land ▲ freeze 07:59:00Z rows vanish anna {command}" in told
    assert _cells(document)["land"][5] == "✖ blocked the stream is frozen by anna"
    assert "▲ Open: freeze of land; where it stands" in document.one("section", id="verdict").text


def test_audit_entries_are_shown_newest_first_and_a_log_that_cannot_be_read_is_told() -> None:
    entry = AuditEntry(7, "2027-01-15T07:00:00.000Z", "freeze", "anna@desk", "ok", {"reason": "why", "n": 2}, b"")
    shown = _document(seen_of({"land": well(EMBASSY)}, audit=AuditSeen("a.jsonl", (entry,))))
    assert (
        "7 2027-01-15T07:00:00.000Z anna@desk freeze ok reason=why, n=2" in shown.one("section", id="audit").text
    )
    hidden = _document(seen_of({"land": well(EMBASSY)}, audit=AuditSeen("a.jsonl", problem="Permission denied")))
    assert "? Not shown: Permission denied [a.jsonl]" in hidden.one("section", id="audit").text


def test_changes_of_state_are_told_and_drawn() -> None:
    history = History()
    history.take(look_of({"land": well(EMBASSY)}))
    later = seen_of({"land": STALLED}, later=40)
    history.take(later.look)
    page = RENDERER.page(later, history)
    assert "08:00:40Z land : following → ✖ stalled" in parsed(page.sections["changes"]).text
    drawing = parsed(page.sections["rpo"]).one("svg")
    assert len(list(drawing.every("line"))) == 2, "the target, and the change"
    assert drawing.attributes["aria-label"] == "land: RPO≤ now 19m05s, worst 19m05s, target 1m00s"


def test_everything_is_stamped_once_it_is_old_and_nothing_before() -> None:
    seen = seen_of({"land": well(EMBASSY), "people": STALLED})
    fresh, stale = _document(seen), _document(seen, stale=True)
    assert all("hidden" in e.attributes for e in fresh.every() if "stale" in e.attributes.get("class", "").split())
    stamps = [e for e in stale.every() if "stale" in e.attributes.get("class", "").split()]
    assert all("hidden" not in e.attributes for e in stamps)
    assert len(stamps) == 1 + len(SECTIONS) + 2, "the banner, each section, each state"
    assert stale.one("html").attributes["data-stale"] == "yes"
    assert stale.one("title").text.startswith("STALE ")


def test_before_the_first_look_nothing_is_claimed() -> None:
    document = parsed(RENDERER.whole(None, site="embassy-1", stale=False))
    assert document.one("h1").text == "? Nothing has been seen yet"
    assert document.one("html").attributes["data-stale"] == "yes"


def test_tables_have_captions_and_scopes_and_scroll_by_keyboard() -> None:
    entry = AuditEntry(7, "2027-01-15T07:00:00.000Z", "freeze", "anna@desk", "ok", {}, b"")
    operation = Operation("land", "freeze", None, "why", (), "x")
    seen = seen_of(
        {"land": well(EMBASSY)}, desks={"land": Desk((), (operation,))}, audit=AuditSeen("a.jsonl", (entry,))
    )
    document = _document(seen)
    tables = list(document.every("table"))
    assert len(tables) == 6
    for table in tables:
        assert table.one("caption").text
        assert all(header.attributes.get("scope") in ("col", "row") for header in table.every("th"))
    ids = [element.attributes["id"] for element in document.every() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    regions = list(document.every("div", role="region"))
    assert len(regions) == 6
    for region in regions:
        assert region.attributes["tabindex"] == "0"
        assert region.attributes["aria-labelledby"] in ids
    assert next(element.tag for element in document.every() if element.tag in ("h1", "h2")) == "h1"
    assert document.one("html").attributes["lang"] == "en"
    assert document.one("", **{"aria-live": "polite"}).text == ""
    assert all(drawing.attributes["aria-label"] for drawing in document.every("svg"))


def test_nothing_in_it_is_code_of_someone_else_or_from_elsewhere() -> None:
    entry = AuditEntry(1, _HOSTILE, _HOSTILE, _HOSTILE, _HOSTILE, {_HOSTILE: _HOSTILE}, b"")
    operation = Operation(_HOSTILE, _HOSTILE, NOW, _HOSTILE, (_HOSTILE,), _HOSTILE)
    seen = seen_of(
        {_HOSTILE: STALLED},
        Problem(Side.HOME, _HOSTILE, TransientError(_HOSTILE, place=_HOSTILE, hint=_HOSTILE)),
        desks={_HOSTILE: Desk((_HOSTILE,), (operation,))},
        audit=AuditSeen(_HOSTILE, (entry,)),
    )
    document = _document(seen, stale=True)
    (script,) = document.every("script")
    assert (script.attributes, script.children) == ({"src": "/static/console.js", "defer": ""}, [])
    for element in document.every():
        assert not [name for name in element.attributes if name.startswith("on") or name == "style"], element
        for name in ("src", "href"):
            assert element.attributes.get(name, "/").startswith(("/", "#")), element
    assert _HOSTILE in _cells(document), "it is shown as it is"
    assert "49" not in document.one("section", id="registries").text


def test_a_page_is_a_function_of_what_was_seen() -> None:
    seen = seen_of({"land": well(EMBASSY), "people": STALLED}, desks={"land": OPEN, "people": OPEN})
    assert _page(seen) == _page(seen)
    shape: Any = json.loads(json.dumps(seen.document))
    assert shape["schema"] == "embassy.status/1"
