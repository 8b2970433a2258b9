"""From somebody's ONNX file to the one that is tuned: cleaned, and compared with it by running both."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError, one_line
from hw_profiles.runtimes.plugin import host_runtime
from hw_profiles.runtimes.runtime import Arrays, Artifact, Executable
from supernet.imported.cleaning import clean, finish, fold
from supernet.imported.fixed_value import Fixed
from supernet.imported.fixing import fix_inputs, require_agreement
from supernet.imported.made_up import Feeds, made_up_feeds
from supernet.imported.onnx_file import LARGEST, ONNX_DOMAINS, graph_of
from supernet.imported.open_dimensions import bind, input_shapes, name_dimensions, sized
from supernet.imported.widening import computes_in_halves, widen

# from what changes most to what changes least: the first whose result computes the same is taken
_LEVELS = (clean, fold, finish)
_TOLERANCE = 1e-3  # of the largest number of an output: sums in another order
_HALF_TOLERANCE = 3e-2  # where numbers have 11 bits
NOT_REGISTERED = "not a registered function/op"  # what ONNX Runtime says of an operation that it lacks
_EQUAL = 0.9  # share of whole numbers, such as places of largest scores, that must be the same


def prepare(
    proto: onnx.ModelProto,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    feeds: Feeds | None = None,
    fixed: Fixed | None = None,
) -> bytes:
    """Return an ONNX file that computes what somebody's does, with constants folded and every node named.

    It is run beside the original at the bound sizes, and at others where the original takes them.

    Args:
        proto: of the file, see `supernet.imported.onnx_file.read_onnx`.
        shapes: sizes of inputs with open dimensions, by name.
        feeds: an example of what it reads; made up without.
        fixed: value of inputs that always have the same; for others of them it need not compute the same.

    Raises:
        TrilobitError: it cannot be used, dimensions have no size, or the example has other values than the
            fixed ones.
    """
    model = graph_of(proto)
    name_dimensions(model)
    bound = bind(input_shapes(model), shapes or {})
    halves = computes_in_halves(model)
    tolerance = _HALF_TOLERANCE if halves else _TOLERANCE
    original = _Original(proto, _feeds_of(model, bound, feeds, fixed or {}), tolerance)
    for level in (_clean_widened, *_LEVELS) if halves else _LEVELS:
        fix_inputs(model, fixed or {})
        try:
            content = _written(level(model))
        except TrilobitError:
            raise
        except Exception:  # what a converter or a rewrite stumbles over
            content = b""
        if content and original.equals(content):
            return content
        model = graph_of(proto)
        name_dimensions(model)
    raise TrilobitError("the network does not compute the same once its nodes have names; is it random?")


def _clean_widened(model: ir.Model) -> ir.Model:
    return clean(widen(model))


def _written(model: ir.Model) -> bytes:
    proto = ir.to_proto(model)
    size = proto.ByteSize()
    if size > LARGEST:
        raise TrilobitError(
            f"with its weights the network has {size:,} bytes; an ONNX file has at most {LARGEST:,}"
        )
    return bytes(proto.SerializeToString())


def _feeds_of(model: ir.Model, bound: Mapping[str, int], feeds: Feeds | None, fixed: Fixed) -> list[Feeds]:
    """Return what the networks are compared on: an example, and made-up ones of other sizes."""
    require_agreement(fixed, feeds or {})
    batch = {name: 2 if size == 1 else size for name, size in bound.items()}
    larger = {name: 2 * size for name, size in bound.items()}
    others = [sizes for sizes in (batch, larger) if sizes != bound]
    made_up = [made_up_feeds(model, sized(input_shapes(model), sizes), fixed) for sizes in (bound, *others)]
    return [feeds or made_up[0], *made_up[1:]]


class _Original:
    """The network as it came, and what it gives; nothing where no runtime takes it."""

    def __init__(self, proto: onnx.ModelProto, feeds: list[Feeds], tolerance: float) -> None:
        self._tolerance = tolerance
        try:
            executable = compiled(proto.SerializeToString())
        except TrilobitError as error:
            unknown = foreign_operations(proto)
            if unknown and NOT_REGISTERED in str(error):
                raise TrilobitError(
                    f"it has operations of others than ONNX that nothing here runs: {unknown}; export it "
                    "without them"
                ) from None
            raise TrilobitError(f"{error}{unknown and f'; of others than ONNX: {unknown}'}") from None
        self._pairs = [(inputs, _outputs(executable, inputs)) for inputs in feeds]

    def equals(self, content: bytes) -> bool:
        """Return whether a network gives the same wherever the original gives anything."""
        try:
            executable = compiled(content)
        except TrilobitError:
            return False
        return all(
            expected is None or same(expected, _outputs(executable, inputs), self._tolerance)
            for inputs, expected in self._pairs
        )


def foreign_operations(proto: onnx.ModelProto) -> str:
    """Return operations of other domains than ONNX's and the functions in the file, as text."""
    own = {(function.domain, function.name) for function in proto.functions}
    foreign = Counter(
        f"{node.domain}.{node.op_type}"
        for node in proto.graph.node
        if node.domain not in ONNX_DOMAINS and (node.domain, node.op_type) not in own
    )
    return ", ".join(
        f"{name} ({'once' if count == 1 else f'{count} times'})" for name, count in foreign.items()
    )


def compiled(content: bytes) -> Executable:
    """Return a network of this machine's runtime.

    Raises:
        TrilobitError: it takes no such network.
    """
    try:
        return host_runtime().compile(Artifact(content))
    except Exception as error:  # whatever the engine rejects
        raise TrilobitError(f"the network cannot be opened: {one_line(error)}") from None


def _outputs(executable: Executable, feeds: Feeds) -> Arrays | None:
    try:
        return executable.run(feeds)
    except Exception:  # sizes or numbers that it does not take
        return None


def same(expected: Arrays, actual: Arrays | None, tolerance: float = _TOLERANCE) -> bool:
    """Return whether outputs are the same but for rounding."""
    if actual is None or expected.keys() != actual.keys():
        return False
    return all(_close(expected[name], actual[name], tolerance) for name in expected)


def _close(expected: NDArray[np.generic], actual: NDArray[np.generic], tolerance: float) -> bool:
    if not isinstance(expected, np.ndarray) or expected.dtype.kind not in "fiub":
        return True  # lists of tensors, and text
    if expected.shape != actual.shape or expected.dtype != actual.dtype:
        return False
    if expected.dtype.kind != "f":
        return expected.size == 0 or float((expected == actual).mean()) >= _EQUAL
    left, right = expected.astype(np.float64), actual.astype(np.float64)
    finite = np.isfinite(left)
    if not np.array_equal(left[~finite], right[~finite], equal_nan=True):
        return False
    tolerance = _HALF_TOLERANCE if expected.dtype.itemsize == 2 else tolerance
    largest = np.abs(left[finite]).max(initial=0.0)
    return bool((np.abs(left[finite] - right[finite]) <= tolerance * largest + 1e-6).all())
