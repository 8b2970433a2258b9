"""What people want, in their words: points to head for, networks to export, and how long it may take."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hw_profiles.durations import parse_time as parse_time
from hw_profiles.errors import TrilobitError, shown
from nas.search.limits import Limit, parse_limit
from nas.search.objectives import objective, objectives

PICKS = "knee, fastest>=ACCURACY, best<=LATENCY, all, or an id"
_BOUNDED = re.compile(r"(fastest\s*>=|best\s*<=)\s*(.+)")
_ID = re.compile(r"[0-9A-Za-z_.-]+")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+_.-]*://.*")
LOCAL, NO_CLUSTER, MOST_LOCAL = "local:", "none", 1_024
CLUSTERS = f"tcp://HOST:8786, tls://HOST:8786, {LOCAL}N or {NO_CLUSTER}"
_SCHEDULER = re.compile(r"(tcp|tls|ws|wss|ucx|ucxx)://\S+")


@dataclass(frozen=True)
class Bounded:
    """One network of a front, by a bound.

    Attributes:
        fastest: whether the quickest is meant that is so accurate, or the most accurate that is so quick.
        text: the bound as it was written.
    """

    fastest: bool
    text: str

    @property
    def bounded(self) -> str:
        """Name of the objective that has the bound."""
        return "accuracy" if self.fastest else "latency"

    @property
    def limit(self) -> Limit:
        """The bound."""
        return parse_limit(self.text, objective(self.bounded))


def parse_pick(text: str) -> Bounded | str:
    """Return which networks `text` means: `knee`, `all`, the beginning of an id, or those of a bound.

    >>> parse_pick("fastest>=92%").limit
    Limit(value=0.92, relative=False)

    Raises:
        TrilobitError: it means none.
    """
    word = text.strip()
    if match := _BOUNDED.fullmatch(word):
        pick = Bounded(match[1].startswith("fastest"), match[2])
        _ = pick.limit
        return pick
    if _ID.fullmatch(word) is None:
        raise TrilobitError(f"{shown(text)} means no network: write {PICKS}")
    return word


def parse_aim(text: str) -> Mapping[str, Limit]:
    """Return a point that a search heads for, by objective.

    >>> parse_aim("accuracy=50%")
    {'accuracy': Limit(value=0.5, relative=False)}

    Raises:
        TrilobitError: not objectives, each once and with a value.
    """
    aims: dict[str, Limit] = {}
    for part in text.split(","):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not equals or name not in objectives() or name in aims:
            raise TrilobitError(
                f"reference point {shown(text)}: write objectives ({', '.join(objectives())}), each once and "
                "with a value, such as accuracy=95%,latency=0.3ms"
            )
        aims[name] = parse_limit(value, objective(name))
    return aims


def check_url(text: str) -> None:
    """Refuse what is no URL of a storage; the database's own reader says the rest.

    Raises:
        TrilobitError: without quoting it, for what is no URL may hold a password anywhere.
    """
    if _URL.fullmatch(text) is None:
        raise TrilobitError(
            "the storage is not a URL; write for example postgresql+psycopg://USER@HOST/DATABASE or "
            "sqlite:///FILE"
        )


def check_cluster(text: str) -> None:
    """Refuse what names no Dask cluster.

    >>> check_cluster("tcp://10.0.0.5:8786"), check_cluster("local:4"), check_cluster("none")
    (None, None, None)

    Raises:
        TrilobitError: neither the address of a scheduler nor a number of workers of this machine.
    """
    if text == NO_CLUSTER or _SCHEDULER.fullmatch(text):
        return
    count = text.removeprefix(LOCAL)
    if not text.startswith(LOCAL) or not count.isascii() or not count.isdigit():
        raise TrilobitError(f"cluster {shown(text)}: write {CLUSTERS}")
    if not 1 <= int(count) <= MOST_LOCAL:
        raise TrilobitError(f"cluster {shown(text)}: from 1 to {MOST_LOCAL:,} workers of this machine")
