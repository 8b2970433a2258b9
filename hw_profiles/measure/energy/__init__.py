"""Joules of one run, from whatever counts them on this machine: counters of processors, sensors of boards,
programs of their makers. Only the standard library, and Python 3.8: the agent on a board carries this folder.
"""

from __future__ import annotations

from hw_profiles.measure.energy.meter import EnergyError as EnergyError
from hw_profiles.measure.energy.meter import Meter as Meter
from hw_profiles.measure.energy.meter import joules_of as joules_of
from hw_profiles.measure.energy.sources import find_meter as find_meter
