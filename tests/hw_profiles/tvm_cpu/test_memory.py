"""The workspace: nothing that is still needed is written over."""

from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.graph.layer import INPUT, map_layer
from hw_profiles.graph.workload import Workload
from hw_profiles.runtimes.tvm_cpu.memory import ALIGNMENT, last_uses, plan_memory

SHAPE = (4, 2, 2)


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    """Sums of any two tensors that came before."""
    count = draw(st.integers(1, 12))
    sources = tuple(
        (draw(st.integers(INPUT, i - 1)), draw(st.integers(max(INPUT, i - 3), i - 1))) for i in range(count)
    )
    layers = (map_layer("add", SHAPE, 4),) * count
    return Workload(tuple(map(str, range(count))), layers, sources)


@given(workloads(), st.lists(st.integers(1, 1000), min_size=12, max_size=12))
def test_tensors_that_live_together_share_no_byte(work: Workload, sizes: list[int]) -> None:
    count = len(work.layers)
    offsets, total = plan_memory(work, sizes[:count])
    last = last_uses(work)
    for i in range(count - 1):
        assert offsets[i] % ALIGNMENT == 0
        assert offsets[i] + sizes[i] <= total
        for j in range(i):
            apart = offsets[i] + sizes[i] <= offsets[j] or offsets[j] + sizes[j] <= offsets[i]
            assert apart or last[j] < i


def test_a_chain_needs_two_tensors() -> None:
    layers = (map_layer("add", SHAPE, 4),) * 6
    work = Workload(tuple("abcdef"), layers, tuple((i - 1, i - 1) for i in range(6)))
    offsets, total = plan_memory(work, [64] * 6)
    assert offsets[:5] == [0, 64, 0, 64, 0]
    assert total == 128
