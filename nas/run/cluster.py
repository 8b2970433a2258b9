"""A Dask cluster that evaluates: which of its workers may, what they are asked, and what they answer.

What is scheduled where, lost workers and their tasks, and the dashboard are Dask's own.
"""

import logging
import queue
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Any, TypeAlias
from uuid import uuid4

from hw_profiles.engines import version_of
from hw_profiles.errors import TrilobitError, one_line
from nas.run.reporting import QUIET, Reporter
from nas.run.wanted import LOCAL

DEVICE = "device"  # the resource that workers announce which may measure
CONNECT_S = 5.0  # to wait for a scheduler
WORKERS_S = 10.0  # to wait for workers, before anything is evaluated
LONELY_S = 60.0  # to wait for one after all were lost
LOOK_S = 0.5  # between two looks at who is there, while nothing comes
SOFTWARE = ("trilobit", "torch", "onnxruntime", "distributed")  # of which workers must have our versions
PASSED_ON_BY = ("trilobit", "distributed")  # of which the scheduler must
# of workers of its own
_SILENT = {"distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "critical"}
_LOGS = ("", ".client", ".scheduler", ".worker", ".nanny", ".core", ".batched", ".comm")
Client: TypeAlias = Any


class RefusedError(Exception):
    """A worker says that it cannot evaluate for a run, and why; another may."""


@dataclass(frozen=True)
class Refusal:
    """A worker that cannot evaluate for a run.

    Attributes:
        worker: its address.
        why: in one line.
    """

    worker: str
    why: str


class Cluster:
    """A connection to a scheduler, made on first use and ended with the block that it is the context of.

    Args:
        address: of the scheduler, or `local:N`: N workers of this machine, for this connection alone.
        reporter: told who works, and who is left out.
    """

    def __init__(self, address: str, reporter: Reporter = QUIET) -> None:
        self.address = address
        self._reporter = reporter
        self._accepted: set[str] = set()
        self._asked: set[str] = set()  # where tasks may go, once somebody must be avoided
        self._refused: set[Refusal] = set()

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None) -> None:
        self.close()

    @property
    def local(self) -> bool:
        """Whether its workers are on this machine, which then does the measuring itself."""
        return self.address.startswith(LOCAL)

    @cached_property
    def _client(self) -> Client:
        """The connection.

        Raises:
            TrilobitError: no scheduler answers.
            ModuleNotFoundError: Dask is not installed.
        """
        from distributed import Client

        _hush()
        try:
            with _without_version_warnings():
                client = Client(self._own or self.address, timeout=CONNECT_S, set_as_default=False)
        except Exception as error:  # whatever Dask says of an address, of certificates, or of a network
            raise TrilobitError(
                f"no Dask scheduler answers at {self.address} ({one_line(error)}): start one with `dask "
                "scheduler`, give another with --cluster, or evaluate in this process with --cluster none"
            ) from None
        if why := _why_not(_ours(PASSED_ON_BY), _said(client)):
            client.close()
            raise TrilobitError(f"the scheduler at {self.address} cannot pass anything on: {why}")
        return client

    @cached_property
    def _own(self) -> Any:
        """The scheduler and workers of this connection alone; None where there are others."""
        if not self.local:
            return None
        import dask
        from distributed import LocalCluster

        count = int(self.address.removeprefix(LOCAL))
        own = {"n_workers": count, "threads_per_worker": 1, "memory_limit": None}
        with _interrupts_ignored(), dask.config.set(_SILENT):
            return LocalCluster(**own, dashboard_address="127.0.0.1:0")

    def close(self) -> None:
        """End the connection, and workers of its own."""
        for name in ("_client", "_own"):
            resource = self.__dict__.pop(name, None)
            if resource is not None:
                with suppress(OSError, TimeoutError):  # of what is gone already
                    resource.close()

    # -- who works -----------------------------------------------------------------------------------

    def require_workers(self, *, measuring: bool = False) -> None:
        """See that somebody is there who can evaluate, and say who.

        Args:
            measuring: whether one must be able to measure, too.

        Raises:
            TrilobitError: no scheduler answers, or nobody is there after `WORKERS_S`; says how to start one.
        """
        end = time.monotonic() + WORKERS_S
        while not (usable := self._usable(measuring)) and time.monotonic() < end:
            time.sleep(LOOK_S)
        if not usable:
            raise TrilobitError(self._nobody(measuring))

    def count(self, *, measuring: bool = False) -> int:
        """Return how many workers may be asked, or measure; at least one, which is waited for."""
        return max(1, len(self._usable(measuring)))

    def introduce(self, board: str = "") -> None:
        """Say who works, and where Dask's dashboard is.

        Args:
            board: that is measured on, which no worker speaks to.
        """
        usable, known = self._usable(False), self._workers()
        workers = [known[address] for address in sorted(usable & known.keys())]
        measuring = sum(_measures(worker) for worker in workers)
        this_process = f"this process {f'alone speaks to {board}' if board else 'measures'}"
        may_measure = this_process if self.local or board else f"{measuring} with the resource `{DEVICE}`"
        hosts = len({worker.get("host") for worker in workers})
        machines = f"{hosts} machine{'s' * (hosts > 1)}"
        self._reporter.say(
            f"  cluster {self.address}: {len(workers)} worker{'s' * (len(workers) != 1)} on {machines}, "
            f"{may_measure}; dashboard {self._client.dashboard_link or 'not installed'}"
        )
        if any(worker.get("nthreads", 1) > 1 for worker in workers):
            self._reporter.say(
                "  some workers have several threads, of which one evaluates: start them with "
                "--nworkers N --nthreads 1"
            )

    def _workers(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what the scheduler says of each worker, by address.

        Raises:
            TrilobitError: it is gone.
        """
        if self._client.status != "running":
            raise self._lost()
        try:
            info: Mapping[str, Any] = self._client.scheduler_info(n_workers=-1)
        except (OSError, TimeoutError):
            raise self._lost() from None
        return dict(info["workers"])

    def _usable(self, measuring: bool) -> set[str]:
        """Return the addresses of those who may be asked; those who are new are looked at first."""
        workers = self._workers()
        known = self._accepted | {refusal.worker for refusal in self._refused}
        if fresh := sorted(workers.keys() - known):
            own_versions = _ours(SOFTWARE)
            said = self._client.run(software, workers=fresh, on_error="return")
            for worker, versions in said.items():
                if why := _why_not(own_versions, versions):
                    self._refuse(Refusal(worker, why))
                else:
                    self._accepted.add(worker)
        may = workers.keys() & self._accepted
        return {worker for worker in may if not measuring or _measures(workers[worker])}

    def _refuse(self, refusal: Refusal) -> None:
        self._accepted.discard(refusal.worker)
        if refusal not in self._refused:
            self._refused.add(refusal)
            self._reporter.say(f"worker {refusal.worker} is left out: {refusal.why}")

    def _nobody(self, measuring: bool) -> str:
        start = f"`dask worker {self.address} --nworkers 1 --nthreads 1"
        if measuring and self._accepted:
            return (
                f"finalists are timed on the run's device, and no worker of {self.address} announces the "
                f'resource `{DEVICE}`: start one on that machine, {start} --resources "{DEVICE}=1"`'
            )
        if self._refused:
            whys = "; ".join(sorted(f"{refusal.worker}: {refusal.why}" for refusal in self._refused))
            return f"no worker of {self.address} can evaluate for this run: {whys}"
        return f"no worker has joined {self.address}: start some, {start}`"

    def _lost(self) -> TrilobitError:
        return TrilobitError(
            f"the scheduler at {self.address} is gone; what was evaluated is kept. Start it and its workers "
            f"again (`dask scheduler`; `dask worker {self.address} --nthreads 1`), and the same command "
            "continues where this one stopped"
        )

    # -- what is asked -------------------------------------------------------------------------------

    def answers(
        self, function: Callable[[Any], Any], items: Sequence[Any], *, measuring: bool = False
    ) -> Iterator[tuple[int, Any]]:
        """Yield what workers make of items, each with its position, as soon as one is done.

        A lost worker's tasks are given to others; one that takes several workers with it is given up.

        Args:
            function: of a module, which workers import; it raises `RefusedError` where another worker may do
                better, TrilobitError where none would.
            measuring: whether only workers with the resource `device` may do it, one at a time each.

        Raises:
            TrilobitError: the function's own; or the scheduler is gone, or all workers are for `LONELY_S`, or
                a task was lost with several of them. What was not yielded until then is lost.
        """
        if not items:
            return
        from distributed.protocol.pickle import dumps

        self.require_workers(measuring=measuring)
        done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        pending: dict[Any, int] = {}

        def submit(position: int) -> None:
            # restricted only where somebody must be avoided: else those may help who join later
            self._asked = set(self._accepted)
            workers = {"workers": sorted(self._asked)} if self._refused else {}
            resources = {"resources": {DEVICE: 1}} if measuring else {}
            key = f"{_name(function)}-{uuid4()}"
            how = {"key": key, "pure": False, **workers, **resources}
            # as bytes: the scheduler would open the function's module to look at it, with all that it imports
            future = self._client.submit(_ask, dumps((function, items[position])), **how)
            pending[future] = position
            future.add_done_callback(done.put)

        try:
            for position in range(len(items)):
                submit(position)
            while pending:
                future = self._next(done, measuring)
                position = pending.pop(future)
                answer = self._answer(future)
                if isinstance(answer, Refusal):
                    self._refuse(answer)
                    self.require_workers(measuring=measuring)
                    submit(position)
                elif isinstance(answer, TrilobitError):
                    raise answer
                else:
                    yield position, answer
        finally:
            for future in pending:  # nobody waits for them any more: what was not begun is not
                future.release()

    def _next(self, done: "queue.SimpleQueue[Any]", measuring: bool) -> Any:
        """Return the next future that is done.

        Raises:
            TrilobitError: the scheduler is gone, or nobody is left who could go on.
        """
        lonely_since = None
        while True:
            with suppress(queue.Empty):
                return done.get(timeout=LOOK_S)
            usable = self._usable(measuring)
            if usable & self._asked if self._refused else usable:
                lonely_since = None
                continue
            if lonely_since is None:
                lonely_since = time.monotonic()
                self._reporter.say(f"all workers are gone; waiting {LONELY_S:.0f} s for another")
            if time.monotonic() - lonely_since > LONELY_S:
                kept = "what was evaluated is kept, and the same command continues"
                raise TrilobitError(f"{self._nobody(measuring)}; {kept}")

    def _answer(self, future: Any) -> Any:
        """Return what a task that is done has given.

        Raises:
            TrilobitError: it was lost with several workers, or with the scheduler.
        """
        from distributed import KilledWorker

        try:
            return future.result(timeout=CONNECT_S * 12)
        except KilledWorker as error:
            raise TrilobitError(
                f"one evaluation was lost with several workers, one after the other (the last was "
                f"{error.last_worker.address}); see why they died (memory?); the same command continues "
                "where this one stopped"
            ) from None
        except Exception:
            if future.cancelled() or self._client.status != "running":
                raise self._lost() from None
            raise


def software() -> dict[str, str]:
    """Return the versions here of what all workers must have alike; those that are not installed are none."""
    return {package: version_of(package) or "none" for package in SOFTWARE}


def _name(function: Any) -> str:
    """Return what the dashboard calls a function."""
    return str(getattr(function, "func", function).__name__)


def _ours(packages: Sequence[str]) -> dict[str, str]:
    return {package: version for package, version in software().items() if package in packages}


def _said(client: Client) -> Any:
    """Return the software of the scheduler, or why it cannot say."""
    try:
        return client.run_on_scheduler(software)
    except Exception as error:  # it has no trilobit, or one that has no such function
        return error


def _ask(payload: bytes) -> Any:
    """Return what a function makes of an item, on a worker: what ends it expectedly is an answer, too."""
    from distributed import get_worker
    from distributed.protocol.pickle import loads

    try:
        function, item = loads(payload)
        return function(item)
    except (RefusedError, ModuleNotFoundError) as error:
        return Refusal(str(get_worker().address), str(error))
    except TrilobitError as error:
        return error


def _why_not(own_versions: Mapping[str, str], versions: Any) -> str:
    """Return why a worker with that software cannot be asked; empty where it can."""
    if isinstance(versions, BaseException):
        return f"it cannot load trilobit ({one_line(Exception(versions))}); install the same there"
    differing = [
        f"{package} {versions.get(package)} there, {version} here"
        for package, version in own_versions.items()
        if versions.get(package) != version
    ]
    return f"{', '.join(differing)}; install the same" if differing else ""


def _measures(worker: Mapping[str, Any]) -> bool:
    return bool(worker.get("resources", {}).get(DEVICE))


def _hush() -> None:
    """Keep Dask's own log off people's terminals: what matters of it is said in one line."""
    for name in _LOGS:
        logging.getLogger(f"distributed{name}").setLevel(logging.CRITICAL)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Let processes that begin in the block ignore Ctrl-C, which a terminal sends them, too: this one ends
    them.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone may change that
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _without_version_warnings() -> Iterator[None]:
    """Leave out Dask's table of versions: workers with others are refused, by name."""
    from distributed.versions import VersionMismatchWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VersionMismatchWarning)
        yield
