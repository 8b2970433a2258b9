"""Which kernels saturate is found by running some; the model that is run is checked without a runtime."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profile_json import load_profile, save_profile
from hw_profiles.reference.integer_sums import WIDEST_EXACT, IntegerSums
from hw_profiles.runtimes.info import DeviceInfo
from hw_profiles.runtimes.ort import runtime as ort
from hw_profiles.runtimes.ort.integer_sums import (
    EXACT,
    KERNELS,
    LARGEST_INPUT,
    LARGEST_WEIGHT,
    largest_inputs,
    saturating_kinds,
    saturating_model,
)
from hw_profiles.runtimes.ort.runtime import EXACT_SUMS, integer_sums, open_session, saturating_kernels

CPU = "CPUExecutionProvider"
LARGEST_16_BITS = 2**15 - 1


def codes(pair_sum: int) -> dict[str, np.ndarray]:
    """What each kernel of the model gives where two products add up to `pair_sum`."""
    exact = 2 * LARGEST_INPUT * LARGEST_WEIGHT
    return {name: np.full((1, 4), np.rint(EXACT * pair_sum / exact), np.float32) for name in KERNELS}


def test_a_pair_of_the_largest_products_leaves_16_bits_and_is_noticed() -> None:
    exact = 2 * LARGEST_INPUT * LARGEST_WEIGHT
    assert exact > LARGEST_16_BITS
    assert saturating_kinds(codes(exact)) == ()
    assert saturating_kinds(codes(LARGEST_16_BITS)) == tuple(KERNELS)


def test_the_widest_exact_weight_is_the_widest() -> None:
    sums = [2 * LARGEST_INPUT * weight <= LARGEST_16_BITS for weight in (WIDEST_EXACT, WIDEST_EXACT + 1)]
    assert sums == [True, False]


def test_integer_kernels_run_the_model() -> None:
    """Float ones would be exact everywhere."""
    session = open_session(saturating_model())
    assert {output.name for output in session.get_outputs()} == set(KERNELS)
    found = session.run(None, largest_inputs())
    assert all(0 < output.max() <= EXACT for output in found)


def test_the_device_says_what_was_found_and_asks_once() -> None:
    kinds = saturating_kernels(CPU)
    assert kinds is not None
    assert "depthwise" not in kinds  # that kernel multiplies in 32 bits on every x86 processor
    assert integer_sums(CPU) == ("saturating" if kinds else "exact")
    assert saturating_kernels(CPU) is kinds


def test_where_no_integer_kernel_runs_it_is_not_known() -> None:
    assert integer_sums("AbacusExecutionProvider") == "unknown"


@pytest.mark.parametrize(("sums", "reduced"), [("exact", False), ("saturating", True), ("unknown", True)])
def test_weights_are_reduced_unless_sums_are_exact(sums: str, *, reduced: bool) -> None:
    assert IntegerSums(sums).reduced is reduced


def test_a_profile_from_before_is_read_and_does_not_know(
    device_profile: DeviceProfile, tmp_path: Path
) -> None:
    path = tmp_path / "old.json"
    save_profile(device_profile, path)
    document = json.loads(path.read_text())
    del document["device"]["integer_sums"], document["checksum"]
    path.write_text(json.dumps(document))
    assert load_profile(path).device == DeviceInfo("made-up-cpu", "no CPU", "formula", "1", "none")
    assert load_profile(path).device.sums.reduced


@pytest.mark.parametrize("sums", ["exact", "saturating", "unknown"])
def test_the_option_is_set_where_sums_saturate_and_nowhere_else(
    sums: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere it changes no result, and with VNNI it doubles the time."""
    model = saturating_model()
    monkeypatch.setattr(ort, "integer_sums", lambda provider: sums)
    asked = [open_session(model, exact_sums=exact) for exact in (True, False)]
    assert [entry_of(session) == "1" for session in asked] == [sums == "saturating", False]


def entry_of(session: onnxruntime.InferenceSession) -> str:
    """What the session was given for the option; empty for nothing."""
    try:
        return str(session.get_session_options().get_session_config_entry(EXACT_SUMS))
    except RuntimeError:
        return ""
