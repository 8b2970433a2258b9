"""Find neural networks that trade accuracy against measured latency and size on one device.

The names below are the stable interface; every other module is private and may change at any time. Each is
imported when it is first used, so that `import nas` costs nothing.

>>> import nas
>>> front = nas.search(space="digits-mbconv", max_latency="60%", folder="runs/own")  # doctest: +SKIP
>>> front.best(latency="50us").save("model.onnx")  # doctest: +SKIP
"""

import sys
from pkgutil import resolve_name
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hw_profiles.errors import TrilobitError as TrilobitError
    from hw_profiles.runtimes.device import Device as Device
    from hw_profiles.runtimes.device import Transport as Transport
    from hw_profiles.runtimes.runtime import Executable as Executable
    from hw_profiles.runtimes.runtime import Runtime as Runtime
    from nas.api.actions import bench as bench
    from nas.api.actions import export as export
    from nas.api.actions import load as load
    from nas.api.actions import profile as profile
    from nas.api.actions import search as search
    from nas.api.actions import verify as verify
    from nas.api.exported import Exported as Exported
    from nas.api.exported import ExportedNetwork as ExportedNetwork
    from nas.api.front import Front as Front
    from nas.api.front import Network as Network
    from nas.api.model import Model as Model
    from nas.api.profiles import Profile as Profile
    from nas.api.run_folder import RunFolder as RunFolder
    from nas.api.tune import tune as tune
    from nas.api.tuned import TunedFile as TunedFile
    from nas.api.tuned import TunedFiles as TunedFiles
    from nas.api.tuned import TuneFolder as TuneFolder
    from nas.run.reporting import PlainReporter as PlainReporter
    from nas.run.reporting import Reporter as Reporter
    from nas.search.searcher import Searcher as Searcher
    from nas.serving.bench import Bench as Bench
    from nas.verification.finding import Finding as Finding
    from nas.verification.verification import Verification as Verification
    from predictors.predictor import Predictor as Predictor
    from supernet.families.family import Family as Family
    from supernet.formats.activation_format import ActivationFormat as ActivationFormat
    from supernet.formats.number_format import NumberFormat as NumberFormat
    from supernet.formats.weight_format import WeightFormat as WeightFormat
    from supernet.tasks.task import Task as Task

# name -> where it is
_PUBLIC = {
    # verbs
    **dict.fromkeys(("load", "search", "profile", "export", "verify", "bench"), "nas.api.actions"),
    "tune": "nas.api.tune",
    # results
    **dict.fromkeys(("TuneFolder", "TunedFiles", "TunedFile"), "nas.api.tuned"),
    **dict.fromkeys(("Front", "Network"), "nas.api.front"),
    **dict.fromkeys(("Exported", "ExportedNetwork"), "nas.api.exported"),
    "Model": "nas.api.model",
    "Profile": "nas.api.profiles",
    "RunFolder": "nas.api.run_folder",
    "Verification": "nas.verification.verification",
    "Finding": "nas.verification.finding",
    "Bench": "nas.serving.bench",
    "TrilobitError": "hw_profiles.errors",
    # progress
    **dict.fromkeys(("Reporter", "PlainReporter"), "nas.run.reporting"),
    # what plug-ins implement
    **dict.fromkeys(("Device", "Transport"), "hw_profiles.runtimes.device"),
    **dict.fromkeys(("Executable", "Runtime"), "hw_profiles.runtimes.runtime"),
    "Family": "supernet.families.family",
    "NumberFormat": "supernet.formats.number_format",
    "ActivationFormat": "supernet.formats.activation_format",
    "WeightFormat": "supernet.formats.weight_format",
    "Predictor": "predictors.predictor",
    "Searcher": "nas.search.searcher",
    "Task": "supernet.tasks.task",
}
__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'nas' has no attribute {name!r}")
    value = resolve_name(f"{_PUBLIC[name]}:{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})


class _Package(ModuleType):
    """The package itself, which shows functions where folders have the same name (`search`, `export`):
    importing such a folder would bind its name here.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _PUBLIC and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
