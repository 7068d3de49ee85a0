from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator

import pytest

from embassy.cli.questions import Questions
from embassy.model.errors import TransientError

_SECONDS = 0.6


class _Hung:
    """A place that answers nothing until it is let go."""

    def __init__(self) -> None:
        self.asked = 0
        self.let_go = threading.Event()
        self.gone = threading.Event()

    def __call__(self) -> str:
        self.asked += 1
        self.let_go.wait(30)
        self.gone.set()
        return "late"


@pytest.fixture
def hung() -> Iterator[_Hung]:
    place = _Hung()
    yield place
    place.let_go.set()


@pytest.fixture
def questions() -> Iterator[Questions]:
    made = Questions(at_once=2, seconds=_SECONDS)
    yield made
    made.close()


def _down() -> str:
    raise TransientError("refused")


def test_each_answers_for_itself(questions: Questions) -> None:
    asked: dict[Hashable, Callable[[], str]] = {"land": lambda: "well", "people": _down}
    found = questions.ask(asked)
    assert found["land"] == "well"
    assert str(found["people"]) == "refused"


def test_one_that_hangs_is_given_up_and_costs_the_others_nothing(questions: Questions, hung: _Hung) -> None:
    asked: dict[Hashable, Callable[[], str]] = {"people": hung, "land": lambda: "well"}
    for _ in range(3):
        found = questions.ask(asked)
        assert found["land"] == "well"
        assert "no answer within 0.6 s" in str(found["people"])
    assert hung.asked == 1, "it is not asked again while it hangs"
    hung.let_go.set()
    assert hung.gone.wait(10)
    found = questions.ask({"people": lambda: "back"})
    while isinstance(found["people"], TransientError):  # its thread is about to end
        found = questions.ask({"people": lambda: "back"})
    assert found["people"] == "back"


def test_more_that_hang_than_are_asked_at_a_time_keep_nobody_waiting_twice(
    questions: Questions, hung: _Hung
) -> None:
    asked: dict[Hashable, Callable[[], str]] = {"a": hung, "b": hung, "land": lambda: "well"}
    assert "not asked" in str(questions.ask(asked)["land"])
    assert questions.ask(asked)["land"] == "well"
    assert hung.asked == 2


def test_a_bug_is_not_an_answer(questions: Questions) -> None:
    with pytest.raises(ZeroDivisionError):
        questions.ask({"land": lambda: 1 // 0})
