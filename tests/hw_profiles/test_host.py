"""What is said of the processor."""

from pathlib import Path

import pytest

from hw_profiles.measure.host import INSTRUCTION_SETS, instruction_set


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("flags\t\t: fpu sse4_1 avx2 avx512bw avx512_vnni", "AVX512-VNNI"),
        ("flags\t\t: fpu sse4_1 avx2 avx512bw", "AVX512 without VNNI"),
        ("flags\t\t: fpu sse4_1 avx2", "AVX2"),
        ("Features\t: fp asimd asimddp", "NEON dotprod"),
        ("flags\t\t: fpu", "unknown"),
    ],
)
def test_the_best_instruction_set_is_named(line: str, name: str, tmp_path: Path) -> None:
    listing = tmp_path / "cpuinfo"
    listing.write_text(f"processor\t: 0\nmodel name\t: avx512_vnni in a name\n{line}\n")
    assert instruction_set(listing) == name


def test_an_absent_listing_is_unknown(tmp_path: Path) -> None:
    assert instruction_set(tmp_path / "absent") == "unknown"


def test_this_machine_has_a_known_name() -> None:
    assert instruction_set() in {*INSTRUCTION_SETS.values(), "unknown"}
