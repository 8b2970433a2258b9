"""Files that OpenVINO compiled, kept as it writes them itself: one that is opened again, for another session
or another batch, takes a quarter to a ninth of the time that compiling it takes, and gets memory of its own.
"""

from collections import OrderedDict
from hashlib import sha256
from typing import Any

from hw_profiles.runtimes.openvino.options import CPU, OpenVinoOptions

KEPT_BYTES = 128 * 2**20  # of compiled files
EXPORTS = "EXPORT_IMPORT"  # what devices that can write what they compiled say of themselves


class CompiledFiles:
    """Compiles files as every Trilobit measurement and check does it, and keeps those that were used last.

    Activations are not rounded to integers unless the file says so, which OpenVINO would do by itself before
    products with stored codes; threads are not pinned, which is what whoever measures does.

    Args:
        core: the engine.
        options: of the device.
    """

    def __init__(self, core: Any, options: OpenVinoOptions) -> None:
        self._core, self._provider = core, options.provider
        self._settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": options.precision,
            "PERFORMANCE_HINT": options.hint.upper(),
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        }
        if options.provider == CPU:
            self._settings |= {"INFERENCE_NUM_THREADS": options.threads, "ENABLE_CPU_PINNING": False}
        self._exports = EXPORTS in core.get_property(options.provider, "OPTIMIZATION_CAPABILITIES")
        self._kept = OrderedDict[bytes, bytes]()
        self._size = 0

    def compile(self, model: bytes) -> tuple[Any, bool]:
        """Return an ONNX file compiled, with memory of its own at each call, and whether its graph names
        every node of the file: one that was kept has lost some.

        Raises:
            Exception: whatever OpenVINO rejects.
        """
        if not self._exports:
            return self.anew(model), True
        key = sha256(model).digest()
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._core.import_model(self._kept[key], self._provider, self._settings), False
        compiled = self.anew(model)
        self._keep(key, compiled.export_model().getvalue())
        return compiled, True

    def anew(self, model: bytes, **more: Any) -> Any:
        """Return an ONNX file compiled, whatever is kept.

        Args:
            more: settings, for this file.

        Raises:
            Exception: whatever OpenVINO rejects.
        """
        read = self._core.read_model(model, b"")
        return self._core.compile_model(read, self._provider, {**self._settings, **more})

    def _keep(self, key: bytes, written: bytes) -> None:
        if len(written) > KEPT_BYTES:
            return
        self._kept[key] = written
        self._size += len(written)
        while self._size > KEPT_BYTES:
            self._size -= len(self._kept.popitem(last=False)[1])
