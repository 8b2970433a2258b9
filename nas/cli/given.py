"""The options of a command line by name, as a configuration takes them."""

import argparse
from typing import Any

from hw_profiles.errors import TrilobitError, shown
from nas.cli.flag import LIMITS


def given_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options of the command line by name, `section.key`.

    Raises:
        TrilobitError: a kind of remote device that is not known.
    """
    options: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in vars(arguments).items()
        if value is not None and ("." in name or name == "seed")
    }
    options |= {LIMITS + limited: limit for limited, limit in options.pop(LIMITS, ())}
    if rpc := getattr(arguments, "rpc", None):
        kind, tracker = rpc
        if kind != "tracker":
            raise TrilobitError(
                f"--rpc {shown(kind)}: only 'tracker' is known; write --rpc tracker HOST:PORT"
            )
        options = {"device.name": "tvm", **options, "device.tracker": tracker}
    return options
