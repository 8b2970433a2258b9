"""What every backend promises, whatever engine it drives."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from hw_profiles.backend import Backend, DeviceInfo, Job
from hw_profiles.errors import TrilobitError
from hw_profiles.measurement import MeasurePlan
from hw_profiles.registry import BACKENDS, load
from hw_profiles.workload import INPUT, LayerSpec, Workload
from nas.stages.profile import emit_with_random_numbers

PLAN = MeasurePlan(rounds=3, patience_s=0.0)
CONV = LayerSpec("stem", (1, 28, 28), 8, 3, 2, 1, "relu")
UNKNOWN = replace(CONV, weight_format="int3", activation_format="int3")


@pytest.fixture(scope="session")
def makers(profile_file: Path) -> dict[str, Callable[[], Backend]]:
    """How each backend is made where there is no hardware; a new one needs its line here."""
    return {
        "ort": partial(load("trilobit.devices", BACKENDS, "ort"), provider="CPU", threads=1),
        "recorded": partial(load("trilobit.devices", BACKENDS, "recorded"), profile=profile_file),
    }


@pytest.fixture(scope="session", params=sorted(BACKENDS))
def backend(request: pytest.FixtureRequest, makers: dict[str, Callable[[], Backend]]) -> Backend:
    return makers[request.param]()


def one_layer(layer: LayerSpec) -> Workload:
    return Workload((layer.op,), (layer,), ((INPUT,),))


def job(work: Workload) -> Job:
    return Job(work, partial(emit_with_random_numbers, work, seed=0))


def networks(family, n: int) -> list[Workload]:
    genomes = family.space().sample(n, rng=np.random.default_rng(0))
    return [family.workload(family.space().candidate(genome)) for genome in genomes]


def test_every_backend_is_tested(makers: dict[str, Callable[[], Backend]]) -> None:
    assert set(makers) == set(BACKENDS)


def test_the_device_is_the_same_on_every_call(backend: Backend) -> None:
    assert isinstance(backend.describe(), DeviceInfo)
    assert backend.describe() == backend.describe()
    assert DeviceInfo(**backend.describe().to_json()) == backend.describe()


def test_its_name_is_safe_for_files(backend: Backend) -> None:
    name = backend.describe().name
    assert name == Path(name).name
    assert name.isascii()
    assert " " not in name


def test_supports_the_formats_of_the_default_space(backend: Backend, family) -> None:
    assert all(backend.supports(layer) for work in networks(family, 5) for layer in work.layers)


def test_does_not_claim_to_support_everything(backend: Backend) -> None:
    assert not backend.supports(UNKNOWN)


def test_gives_one_measurement_per_job_in_order(backend: Backend, family) -> None:
    corners = family.corners()
    works = [family.workload(corners[name]) for name in ("largest/fp32", "smallest/fp32", "largest/fp32")]
    large, small, again = backend.measure([job(work) for work in works], PLAN)
    assert small.median_s < min(large.median_s, again.median_s)


def test_samples_are_positive_seconds_paired_by_round(backend: Backend, family) -> None:
    measured = backend.measure([job(work) for work in networks(family, 3)], PLAN)
    assert len({len(one.samples_s) for one in measured}) == 1
    for one in measured:
        assert one.error is None
        assert (one.array > 0).all()
        assert np.isfinite(one.array).all()
        assert 0 <= one.quiet_share <= 1


def test_a_layer_is_a_workload_of_length_one(backend: Backend, family) -> None:
    layer = networks(family, 1)[0].layers[0]
    [measured] = backend.measure([job(one_layer(layer))], PLAN)
    assert measured.error is None


def test_nothing_to_measure_is_nothing(backend: Backend) -> None:
    assert backend.measure([], PLAN) == []


def test_a_job_that_fails_becomes_an_error_and_the_others_go_on(backend: Backend, family) -> None:
    first, second = networks(family, 2)
    broken = Job(one_layer(replace(CONV, out_channels=9)), lambda: b"no model")
    measured = backend.measure([job(first), broken, job(second)], PLAN)
    assert [one.error is None for one in measured] == [True, False, True]
    assert "\n" not in str(measured[1].error)


def test_unknown_backends_and_providers_are_refused() -> None:
    with pytest.raises(TrilobitError, match="unknown device 'abacus'; known: ort, recorded"):
        load("trilobit.devices", BACKENDS, "abacus")
    with pytest.raises(
        TrilobitError, match=r"execution provider 'Abacus' is not installed; installed: .*CPU"
    ):
        load("trilobit.devices", BACKENDS, "ort")(provider="Abacus")


def test_what_was_recorded_is_replayed_exactly(makers, family, device_profile) -> None:
    recorded, works = makers["recorded"](), networks(family, 5)
    measured = recorded.measure([job(work) for work in works], PLAN)
    assert [one.median_s for one in measured] == [device_profile.predict_s(work) for work in works]
