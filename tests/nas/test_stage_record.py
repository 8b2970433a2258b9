"""When a stage of a run folder is done."""

from pathlib import Path

from nas.run.stage_record import StageRecord


def test_a_stage_is_done_while_what_it_depends_on_and_what_it_wrote_are_the_same(tmp_path: Path) -> None:
    record, result = StageRecord(tmp_path), tmp_path / "front.json"
    assert not record.is_done("search", "fingerprint")
    record.mark_done("search", "fingerprint", 1.0)
    assert record.is_done("search", "fingerprint")
    assert not record.is_done("search", "another")
    assert not record.is_done("search", "fingerprint", [result])
    result.touch()
    assert record.is_done("search", "fingerprint", [result])
