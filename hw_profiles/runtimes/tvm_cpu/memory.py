"""Where each tensor of a network lies in one workspace: those never needed together share bytes."""

from collections.abc import Sequence

from hw_profiles.graph.workload import Workload

ALIGNMENT = 64  # bytes: a cache line, and what TVM's kernels expect


def aligned(size: int) -> int:
    """Return `size` rounded up to whole cache lines."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def last_uses(workload: Workload) -> list[int]:
    """Return for each layer the position of the last layer that reads its output; its own where none does."""
    last = list(range(len(workload.layers)))
    for position, sources in enumerate(workload.inputs):
        for source in sources:
            if source >= 0:
                last[source] = max(last[source], position)
    return last


def plan_memory(workload: Workload, sizes: Sequence[int]) -> tuple[list[int], int]:
    """Return (byte offset of each layer's output, size of the workspace).

    Args:
        sizes: bytes of each layer's output. The last layer's is the network's own: it gets no bytes here, and
            its offset is 0.
    """
    last = last_uses(workload)
    offsets, placed = [0] * len(sizes), list[tuple[int, int, int]]()  # placed: (offset, end, last use)
    for position in range(len(sizes) - 1):
        # a tensor may start where one ends that was read for the last time before this layer
        alive = sorted(each for each in placed if each[2] >= position)
        offset, size = 0, aligned(sizes[position])
        for start, end, _ in alive:
            if offset + size <= start:
                break
            offset = max(offset, end)
        offsets[position] = offset
        placed.append((offset, offset + size, last[position]))
    return offsets, max((end for _, end, _ in placed), default=0)
