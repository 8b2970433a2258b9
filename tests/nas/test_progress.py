"""Progress: one bar or line for each kind of work, with an estimate of its own."""

import io
import time

import pytest
from rich.console import Console

from nas.cli.console import ConsoleReporter
from nas.run import progress as module
from nas.run.progress import Lines, Work, duration, waiting_note
from nas.run.reporting import QUIET, PlainReporter, Reporter, Table, progress_bar


@pytest.fixture
def written() -> list[str]:
    return []


def piped() -> tuple[ConsoleReporter, io.StringIO]:
    """What a command reports with where there is no terminal, and where it goes."""
    file = io.StringIO()
    return ConsoleReporter(Console(file=file, force_terminal=False, width=80)), file


def test_what_is_left_follows_from_what_was_done_and_is_corrected() -> None:
    work = Work("units", 100)
    assert work.left_s(0.0) is None
    work.update(10, "", now_s=5.0)
    assert work.left_s(5.0) is None  # how long those took is not known
    work.update(20, "", now_s=10.0)
    assert work.left_s(10.0) == pytest.approx(40.0)
    work.update(30, "", now_s=30.0)  # slower
    assert work.left_s(30.0) == pytest.approx(87.5)
    work.update(100, "", now_s=100.0)
    assert work.left_s(100.0) == 0.0


def test_a_budget_ends_it_earlier() -> None:
    work = Work("units", 677, end_s=72.0)
    assert work.left_s(2.0) is None
    assert work.left(2.0) == "at most 70 s left"  # what it takes is not known yet
    work.update(3, "", now_s=20.0)
    work.update(6, "", now_s=30.0)
    assert work.left_s(30.0) == 42.0
    assert work.left(30.0) == "about 42 s left"
    work.update(670, "", now_s=40.0)
    assert 0 < work.left_s(40.0) < 1


def test_what_a_resumed_start_finds_done_says_nothing_about_time() -> None:
    work = Work("train", 20_000)
    work.update(15_000, "", now_s=1.0)
    work.update(15_010, "", now_s=2.0)
    assert work.left_s(2.0) == pytest.approx(499.0)


def test_one_kind_of_work_does_not_spoil_the_estimate_of_another(written: list[str]) -> None:
    """40,000 predictions take seconds and 24 finalists minutes: on one bar 85 hours were left."""
    lines = Lines(written.append)
    predictions, finalists = Work("predictions", 120_000), Work("finalists", 72)
    lines.works += [predictions, finalists]
    predictions.update(4_000, "", 0.0)
    predictions.update(40_000, "", 3.6)
    finalists.update(1, "", 10.0)
    finalists.update(3, "", 20.0)
    assert predictions.left_s(3.6) == pytest.approx(8.0)
    assert finalists.left_s(20.0) == pytest.approx(345.0)


def test_a_line_says_where_everything_stands_and_why_it_waits(written: list[str]) -> None:
    lines = Lines(written.append)
    waiting, begun, done, later = (Work(name, 8) for name in ("units", "networks", "done", "later"))
    lines.works += [waiting, begun, done, later]
    waiting.update(4, "waiting for a quiet machine (load 12)", 0.0)
    begun.update(0, "", 0.0)
    done.update(8, "", 0.0)
    lines.say()
    lines.say()  # nothing new
    assert written == ["units: 4 of 8; waiting for a quiet machine (load 12); networks: 0 of 8"]


def test_without_a_terminal_a_line_comes_now_and_then(
    written: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINE_S", 0.001)
    end = time.monotonic() + 30
    with progress_bar(PlainReporter(written.append), "sample", 10) as update:
        update(3, "accuracy 81.2 %")
        while not written and time.monotonic() < end:
            time.sleep(0.001)
    assert written[0] == "sample: 3 of 10; accuracy 81.2 %"


def test_without_a_terminal_nothing_is_said_of_what_is_quick(written: list[str]) -> None:
    with progress_bar(PlainReporter(written.append), "sample", 1) as update:
        update(1, "")
    assert written == []


def test_on_a_terminal_each_kind_of_work_has_its_bar() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120, legacy_windows=False)
    with ConsoleReporter(console).progress() as add:
        predictions, finalists = add("predict", 120_000), add("measure", 72)
        predictions(40_000, "7 on the predicted front")
        finalists(3, "waiting for a quiet machine (load 12)")
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for words in ("40,000/120,000", "7 on the predicted front", "3/72", "(load 12)"):
        assert words in shown


@pytest.mark.parametrize("reporter", [QUIET, PlainReporter(lambda line: None), piped()[0]])
def test_every_reporter_takes_lines_tables_status_and_progress(reporter: Reporter) -> None:
    reporter.say("a [line]")
    reporter.show(Table(("", "n"), [("[unit]", "1")], "a [table]", numbers=1))
    with reporter.status("working") as change, reporter.progress() as add:
        change("still working")
        add("train", 2)(1, "half")


def test_brackets_in_what_is_reported_are_no_markup() -> None:
    reporter, file = piped()
    reporter.say("classes [bold]cat[/bold]")
    reporter.show(Table(("[red]name",), [("[link=x]dog",)], "[i]title"))
    assert all(
        words in file.getvalue() for words in ("[bold]cat[/bold]", "[red]name", "[link=x]dog", "[i]title")
    )


def test_waiting_is_told_with_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "load_average", lambda: 12.3)
    assert waiting_note() == "waiting for a quiet machine (load 12)"
    monkeypatch.setattr(module, "load_average", lambda: None)
    assert waiting_note() == "waiting for a quiet machine"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (61, "61 s"), (185, "3 min"), (5990, "1 h 40 min"), (307_000, "85 h 17 min")],
)
def test_durations_as_people_read_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words
