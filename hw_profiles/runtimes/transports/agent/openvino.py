"""OpenVINO on the board."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hw_profiles.runtimes.transports.agent.engines import Info, example_of, imported
from hw_profiles.runtimes.transports.agent.messages import AgentError, one_line

if TYPE_CHECKING:
    Arrays = Mapping[str, Any]

TELEMETRY = "openvino_telemetry"
SETTLING_RUNS = 2  # that allocate and choose
CPU = "CPU"
EXPORTS = "EXPORT_IMPORT"  # what devices that can write what they compiled say of themselves
# lines of an error that say where in the engine it was found
WHERE = (
    *("Exception from ", "Check '", "FrontEnd API failed", "Model wasn't fully converted"),
    "While validating",
)


class OpenVinoFile:
    """A compiled model with a request of its own."""

    def __init__(self, engine: Any, compiled: Any, names: Sequence[str], batch: int) -> None:
        self._engine, self._compiled, self._batch = engine, compiled, batch
        self.request = compiled.create_infer_request()
        self.inputs = [_info(port, names) for port in compiled.inputs]
        self.outputs = [_info(port, names) for port in compiled.outputs]

    def run(self, inputs: Arrays) -> dict[str, Any]:
        """Return the outputs of one batch by name."""
        given = {self._ports()[name]: np.ascontiguousarray(array) for name, array in inputs.items()}
        results = self.request.infer(given)
        return {info.name: np.array(results[i]) for i, info in enumerate(self.outputs)}

    def once(self, batch: int | None, example: Arrays | None) -> Callable[[], object]:
        """Return what runs it once, on inputs that stay where they are."""
        request, ports = self._compiled.create_infer_request(), self._ports()
        for name, array in example_of(self.inputs, batch or self._batch, example).items():
            request.set_input_tensor(ports[name], self._engine.Tensor(array))
        infer = request.infer  # type: Callable[[], object]
        return infer

    def _ports(self) -> dict[str, int]:
        return {info.name: i for i, info in enumerate(self.inputs)}

    def executed(self) -> list[dict[str, Any]]:
        """Return the nodes of the graph that it executes, as it says."""
        return [
            {
                "name": node.get_friendly_name(),
                "said": {key: str(value.astype(str)) for key, value in node.get_rt_info().items()},
                "reads": [each.get_source_output().get_node().get_friendly_name() for each in node.inputs()],
            }
            for node in self._compiled.get_runtime_model().get_ordered_ops()
        ]

    def average_us(self) -> dict[str, float]:
        """Return the average time of each kernel over all runs, by name."""
        infos = self.request.get_profiling_info()
        return {info.node_name: 1e6 * info.real_time.total_seconds() for info in infos}


def _info(port: Any, declared: Sequence[str]) -> Info:
    """Return an input or output by its name in the file; a tensor may have several in the engine."""
    names = sorted(port.get_names())
    name = next((each for each in names if each in declared), names[0] if names else "")
    shape = [size.get_length() if size.is_static else None for size in port.get_partial_shape()]
    return Info(name, shape, str(np.dtype(port.get_element_type().to_dtype())))


class OpenVino:
    """OpenVINO, with what `hw_profiles.runtimes.openvino.compiled` compiles with.

    Args:
        options: `provider`, `precision`, `hint`, `threads`, `batch`.

    Raises:
        AgentError: it is not installed, has no such device here, or that does not compute in this precision.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        known = sys.modules.get(TELEMETRY)
        sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # or it sends events
        try:
            self._engine = imported("openvino")
        finally:
            del sys.modules[TELEMETRY]
            if known is not None:
                sys.modules[TELEMETRY] = known
        self._options, self._core = options, self._engine.Core()
        self.version = str(self._engine.__version__).partition("-")[0]
        self.providers = list(self._core.available_devices)
        provider = options.get("provider", CPU)
        if provider not in self.providers:
            raise AgentError("engine", f"it has no device {provider}; it has {', '.join(self.providers)}")
        self.capabilities = list(self._core.get_property(provider, "OPTIMIZATION_CAPABILITIES"))
        precision = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}[options.get("precision", "f32")]
        if precision not in self.capabilities:
            raise AgentError("engine", f"its {provider} does not compute in {precision}")
        self._kept = (b"", b"")  # the file that was compiled last, and what the engine writes of it

    def open(self, content: bytes, exact_sums: bool, names: Sequence[str], **more: Any) -> OpenVinoFile:
        """Compile a file, or read back what was compiled of it a moment ago, for another session.

        Args:
            more: settings, for this file; with some it is compiled anew.
        """
        options = self._options
        settings = {"INFERENCE_PRECISION_HINT": options.get("precision", "f32")}  # type: dict[str, Any]
        settings["PERFORMANCE_HINT"] = str(options.get("hint", "latency")).upper()
        settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 0
        provider = options.get("provider", CPU)
        if provider == CPU:
            settings["INFERENCE_NUM_THREADS"] = int(options.get("threads", 1))
            settings["ENABLE_CPU_PINNING"] = False
        settings.update(more)
        try:
            if self._kept[0] == content and not more:
                compiled = self._core.import_model(self._kept[1], provider, settings)
            else:
                compiled = self._core.compile_model(self._core.read_model(content, b""), provider, settings)
                if EXPORTS in self.capabilities and not more:
                    self._kept = (content, compiled.export_model().getvalue())
        except RuntimeError as error:
            raise AgentError("artifact", f"OpenVINO: {_reason(error)}") from None
        return OpenVinoFile(self._engine, compiled, names, int(options.get("batch", 1)))

    def graph(self, content: bytes, folder: str) -> bytes:
        """Return the graph that is executed, as JSON."""
        self._kept = (b"", b"")  # what is read back has lost names of nodes
        return json.dumps(self.open(content, False, ()).executed()).encode()

    def profile(
        self, content: bytes, example: Arrays | None, runs: int, folder: str, names: Sequence[str]
    ) -> tuple[bytes, bytes]:
        """Return the graph, and the averages of each kernel after the first runs and after all."""
        opened = self.open(content, False, names, PERF_COUNT=True)
        inputs = example_of(opened.inputs, int(self._options.get("batch", 1)), example)
        averages = []
        for count in (SETTLING_RUNS, runs - SETTLING_RUNS):
            for _ in range(count):
                opened.run(inputs)
            averages.append(opened.average_us())
        return json.dumps(opened.executed()).encode(), json.dumps(averages).encode()


def _reason(error: RuntimeError) -> str:
    """Return the line of an error of the engine that says why, not where in its sources."""
    lines = [line.strip() for line in str(error).partition("\nSummary:")[0].splitlines()]
    telling = [line for line in lines if line and not line.startswith(WHERE)]
    return telling[-1] if telling else one_line(error)
