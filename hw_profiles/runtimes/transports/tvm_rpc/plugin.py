"""Own kernels, compiled by TVM, as a device: this machine, or boards over RPC. Imports no engine."""

from dataclasses import dataclass
from pathlib import Path

from hw_profiles.errors import TrilobitError
from hw_profiles.options import check
from hw_profiles.runtimes.device import Device
from hw_profiles.runtimes.plugin import SECTION, DeviceKind


@dataclass(frozen=True)
class TvmOptions:
    """What can be chosen of TVM.

    Attributes:
        target: what is compiled for: `host`, or for example `aarch64-linux-gnu:cortex-a76`.
        tracker: HOST:PORT of a TVM RPC tracker; empty measures on this machine.
        key: which of the tracker's boards.
        database: folder of tuned units; empty takes the user's cache folder.
    """

    target: str = "host"
    tracker: str = ""
    key: str = ""
    database: str = ""

    def __post_init__(self) -> None:
        check(self, SECTION)
        if bool(self.tracker) != bool(self.key):
            raise TrilobitError(
                "boards over RPC need both a tracker and a key: --rpc tracker HOST:PORT --key KEY"
            )


def _open(options: TvmOptions) -> Device:
    database = Path(options.database) if options.database else None
    if options.tracker:
        from hw_profiles.runtimes.transports.tvm_rpc.remote import open_boards

        return open_boards(options.tracker, options.key, target=options.target, database=database)
    from hw_profiles.runtimes.tvm_cpu.runtime import open_tvm  # the engine: only where something is compiled

    return open_tvm(target=options.target, database=database)


TVM = DeviceKind(
    summary="this machine or boards through own kernels, compiled by TVM",
    open=_open,
    options=TvmOptions,
    argument="target",
    metavar="TARGET",
    artifact="library",
    engines={"tvm": "apache-tvm", "tvm_ffi": "apache-tvm-ffi"},
    engine="apache-tvm",
    on_boards="hw_profiles.runtimes.tvm_cpu.elsewhere:open_on_boards",
    title="TVM",
)
