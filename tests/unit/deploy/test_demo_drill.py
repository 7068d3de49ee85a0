"""What a drill says in the end: how long nobody could write and why, and what is lost beside what the report allows."""

from __future__ import annotations

import io

from rich.console import Console

from deploy.demo.drill_report import DrillReport, HomeReturn, RegistryDrill
from deploy.demo.homecoming_report import Homecoming
from deploy.demo.screen import print_drill


def _registry(name: str, first_write: float | None, *, lost: int = 0, loss: float = 0.0) -> RegistryDrill:
    return RegistryDrill(
        name=name,
        committed=500,
        lost=lost,
        lost_tokens=(),
        lost_before_window=0,
        loss_seconds=loss,
        bound_seconds=4.5,
        phantoms=0,
        duplicated=0,
        violated=(),
        written_abroad=50,
        written_abroad_lost=0,
        first_write_seconds=first_write,
        step_seconds={"drain": 0.5, "verify": 0.1},
        failures=(),
    )


def _drill(*registries: RegistryDrill, lost: int) -> DrillReport:
    return DrillReport(
        load_seconds=30,
        approving_seconds=4,
        promoting_seconds=2,
        approvers=("anna", "bert"),
        registries=registries,
        home=HomeReturn(producer_code=5, producer_said=True, fence_code=0, writable=(), unshipped_kept=lost),
        bundled=lost,
        bundle_whole=True,
        homecoming=Homecoming(
            failback_seconds=3, switching_seconds=1, following_seconds=1, writable=(), registries=()
        ),
    )


def test_a_drill_says_where_the_time_until_the_first_write_went_and_what_was_lost() -> None:
    report = _drill(_registry("land", 1.25), _registry("people", 2.0, lost=3, loss=0.75), lost=3)
    out = io.StringIO()
    print_drill(Console(file=out, width=1000), report)
    told = out.getvalue()
    assert (
        "From promote run to the application's first write: 2.00 s in the last registry (people), of which draining "
        "0.50 s (25 %), verification 0.10 s (5 %), the rest 1.40 s (70 %)." in told
    )
    assert (
        "Of 1,000 transactions that clients were told are committed, 3 are lost, over at most 0.75 s; the report's "
        "bound is 4.5 s. 3 of the lost are in home's conflict bundle." in told
    )
    found = report.to_json()
    assert found["last_first_write"]["rest_seconds"] == 1.4
    assert (found["lost"], found["loss_seconds"], found["loss_seconds_upper_bound"]) == (3, 0.75, 4.5)


def test_a_registry_that_was_never_written_to_has_no_first_write() -> None:
    report = _drill(_registry("land", 1.25), _registry("people", None), lost=0)
    assert report.last_first_write is None
    assert "people: the application could not write" in report.complaints
