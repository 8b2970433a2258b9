"""Targets: what people write, and what goes wrong."""

import shutil

import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.tvm_cpu import target as target_module
from hw_profiles.runtimes.tvm_cpu.target import TvmTarget, host_target, parse_target


def test_the_host_runs_its_own_code() -> None:
    assert parse_target("host") == host_target()
    assert host_target().local


@pytest.mark.parametrize(
    ("flags", "cpu"),
    [
        ("ssse3 sse4_2 avx avx2 fma bmi2 avx512f avx512vl avx512bw avx512cd avx512dq", "x86-64-v4"),
        (
            "ssse3 sse4_2 avx avx2 fma bmi2 avx512f avx512vl avx512bw avx512cd avx512dq avx512_vnni",
            "cascadelake",
        ),
        ("ssse3 sse4_2 avx avx2 fma bmi2", "x86-64-v3"),
        ("ssse3 sse4_2", "x86-64-v2"),
        ("mmx sse2", "x86-64"),
        ("", "znver4"),
    ],
)
def test_what_a_virtual_machine_hides_is_not_used(
    flags: str, cpu: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target_module, "cpu_flags", lambda: set(flags.split()))
    monkeypatch.setattr(target_module.tvm.target.codegen, "llvm_get_system_cpu", lambda: "znver4")
    assert host_target() == TvmTarget(cpu)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("llvm -mcpu=znver4", TvmTarget("znver4")),
        ("znver4", TvmTarget("znver4")),
        ("aarch64-linux-gnu:cortex-a76", TvmTarget("cortex-a76", "aarch64-linux-gnu")),
        ("llvm -mtriple=aarch64-linux-gnu -mcpu=cortex-a76", TvmTarget("cortex-a76", "aarch64-linux-gnu")),
        ("llvm -mcpu=cortex-a76 -mtriple=aarch64-linux-gnu", TvmTarget("cortex-a76", "aarch64-linux-gnu")),
    ],
)
def test_targets_are_read(text: str, target: TvmTarget) -> None:
    assert parse_target(text) == target
    assert parse_target(target.name) == target


@pytest.mark.parametrize(
    ("cpu", "feature", "vector_bytes", "registers"),
    [
        ("znver4", "avx512vnni", 64, 32),
        ("haswell", "avx2", 32, 16),
        ("x86-64", "sse2", 16, 16),
        ("skylake-avx512", "avx512bw", 64, 32),
    ],
)
def test_llvm_tells_what_a_processor_has(cpu: str, feature: str, vector_bytes: int, registers: int) -> None:
    target = TvmTarget(cpu)
    assert feature in target.features
    assert (target.vector_bytes, target.registers) == (vector_bytes, registers)


def test_another_architecture_is_not_local() -> None:
    board = TvmTarget("cortex-a76", "aarch64-linux-gnu")
    assert not board.local
    assert "dotprod" in board.features
    assert (board.vector_bytes, board.registers) == (16, 32)


@pytest.mark.parametrize("text", ["", "llvm", "llvm -mcpu", "cuda -arch=sm_90", "llvm -mcpu=znver4 -opt=3"])
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(TrilobitError):
        parse_target(text)


@pytest.mark.parametrize("text", ["pentium-9", "llvm -mcpu=znvr4", "aarch64-linux-gnu:znver4"])
def test_an_unknown_processor_is_refused(text: str) -> None:
    with pytest.raises(TrilobitError, match="does not know the processor"):
        parse_target(text)


def test_a_missing_compiler_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(TrilobitError, match="apt-get install gcc-aarch64-linux-gnu"):
        TvmTarget("cortex-a76", "aarch64-linux-gnu").compiler()
    with pytest.raises(TrilobitError, match="'cc'"):
        host_target().compiler()
