"""The agent in C on a processor that this machine is not, under an emulator: it loads libraries, tries out
schedules and computes every bit. Its times say nothing of a device, and none is looked at.
"""

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytest

from hw_profiles.graph.builder import WorkloadBuilder
from hw_profiles.graph.layer import INPUT, map_layer
from hw_profiles.graph.workload import single
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.reference.integer_ops import run_network
from hw_profiles.reference.random_units import random_tensor, random_units
from hw_profiles.runtimes.runtime import Artifact, Job
from hw_profiles.runtimes.transports.board import BoardLost
from hw_profiles.runtimes.transports.board_runtime import BoardRuntime
from hw_profiles.runtimes.transports.board_transport import BoardTransport
from hw_profiles.runtimes.transports.boards import Boards
from hw_profiles.runtimes.transports.native_agent import NativeAgent
from hw_profiles.runtimes.tvm_cpu.agent_program import agent_program
from hw_profiles.runtimes.tvm_cpu.elsewhere import HOST, TvmHere
from hw_profiles.runtimes.tvm_cpu.tuning import Database

COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
PLAN = MeasurePlan(rounds=2, sessions=1, waiting_s=0.0, energy_s=0.0)

pytestmark = pytest.mark.skipif(
    not (shutil.which(COMPILER) and shutil.which(EMULATOR)),
    reason=f"needs {COMPILER} and {EMULATOR}: apt-get install gcc-aarch64-linux-gnu qemu-user",
)


@dataclass(frozen=True)
class Emulated:
    """A board of that processor.

    Attributes:
        home: its user's folder.
    """

    home: Path
    name: str = "emulated:aarch64"

    def start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        emulated = [EMULATOR, "-cpu", "max", *command] if "/agent-" in command[0] else command
        pipe, environment = subprocess.PIPE, {**os.environ, "PATH": f"{self.home}/bin:{os.environ['PATH']}"}
        return subprocess.Popen(
            ["sh", "-c", f"exec {shlex.join(emulated)}"],
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            bufsize=0,
            start_new_session=True,
            env=environment,
        )

    def failure(self, returncode: int, said: str) -> BoardLost:
        return BoardLost(f"{self.name} was lost ({returncode}: {said.strip()[-200:]})")


@pytest.fixture
def boards(tmp_path: Path) -> Boards:
    uname = tmp_path / "bin" / "uname"
    uname.parent.mkdir()
    uname.write_text("#!/bin/sh\necho aarch64\n")
    uname.chmod(0o700)
    return Boards([Emulated(tmp_path)], NativeAgent(agent_program, str(tmp_path / "files")))


def test_what_a_board_tries_out_measures_and_computes_is_right(boards: Boards, tmp_path: Path) -> None:
    here = TvmHere(boards, HOST, tmp_path / "tuned")
    runtime, transport = BoardRuntime(here, boards), BoardTransport(boards)
    assert here.local.target.name.startswith("llvm -mtriple=aarch64-linux-gnu -mcpu=cortex-a")

    net = WorkloadBuilder((3, 8, 8))
    x = net.add(
        "stem", map_layer("stem", (3, 8, 8), 8, 3, 2, weight_format="int8", activation_format="int8"), INPUT
    )
    x = net.add("pool", map_layer("pool", (8, 4, 4), 8, activation_format="int8"), x)
    net.add("linear", map_layer("linear", (8, 1, 1), 10, weight_format="int8", activation_format="int8"), x)
    works = [net.build(), single(map_layer("linear", (8, 1, 1), 10))]
    artifacts = runtime.build([Job(work, bytes) for work in works])  # what is wrong there is no schedule
    assert all(isinstance(artifact, Artifact) for artifact in artifacts), artifacts
    assert Database(tmp_path / "tuned", here.local.target).load(works[1].layers[0], tuned=True)

    rows = transport.sample(runtime, [a for a in artifacts if isinstance(a, Artifact)], [None, None], PLAN)
    assert [row.error for row in rows] == [None, None]
    assert asdict(PLAN)["rounds"] <= len(rows[0].samples_s)

    assert isinstance(artifacts[0], Artifact)
    executable = runtime.compile(artifacts[0])
    assert executable.kernels() == runtime.expected_kernels(works[0])
    image = random_tensor(executable.inputs[0].shape, works[0].in_format, np.random.default_rng(1))  # type: ignore[arg-type]
    numbers = random_units(works[0], np.random.default_rng(0))
    np.testing.assert_array_equal(
        executable.run({"image": image})["output"].ravel(), run_network(works[0], numbers, image).ravel()
    )
    assert runtime.describe().board.machine == "aarch64"  # type: ignore[union-attr]
