"""Limits on quality, roles of outputs and directions of own metrics, as people write them for a tune."""

import pytest

from hw_profiles.errors import TrilobitError
from nas.cli.flags import RUN_GROUPS, TUNE_GROUPS
from nas.run.tune_config import TuneSection, parse_role, parse_tune_limit
from supernet.tasks.metric import FIDELITY
from supernet.tasks.output_roles import Role


def test_every_metric_has_a_flag_of_its_own() -> None:
    words = {word for group in TUNE_GROUPS for flag in group.flags for word in flag.words.split()}
    ends = {"max": "min", "min": "max"}
    missing = [
        f"--{ends[metric.direction]}-{name}".replace("_", "-")
        for metric in FIDELITY
        for name in (metric.name, *metric.aliases)
        if f"--{ends[metric.direction]}-{name}".replace("_", "-") not in words
    ]
    assert not missing
    of_a_run = {word for group in RUN_GROUPS for flag in group.flags for word in flag.words.split()}
    assert {"--max-negative-flips", "--min-worst-class"} <= of_a_run
    assert "--max-kl" not in of_a_run  # nothing that networks of a family are measured by


def test_limits_are_kept_by_the_metrics_own_names() -> None:
    assert parse_tune_limit("negative-flips<=0.5%") == ("flips", "0.5%")
    assert parse_tune_limit("worst-class=80%") == ("worst_class", "80%")
    assert parse_tune_limit("my_error=3") == ("my_error", "3")  # somebody's own
    with pytest.raises(TrilobitError, match="less flips is better"):
        parse_tune_limit("negative-flips>=1%")


def test_roles_and_directions() -> None:
    section = TuneSection(outputs=("boxes=values", "a=b=scores"), metric_direction="min")
    assert section.roles == {"boxes": Role.VALUES, "a=b": Role.SCORES}
    assert section.direction == "min"
    assert TuneSection().direction is None
    with pytest.raises(TrilobitError, match="one of scores, probabilities, chances, decisions, values"):
        parse_role("boxes=box")
    with pytest.raises(TrilobitError, match=r"tune.metric_direction: .*max"):
        TuneSection(metric_direction="up")
