"""What devices have in common that time nothing."""

from hw_profiles.graph.layer import Layer
from hw_profiles.measure.in_context import Probe, alone


class NeverTimed:
    """A device on which nothing is timed: layers stand by themselves."""

    @property
    def timed(self) -> bool:
        """Nothing is."""
        return False

    @property
    def parallel(self) -> int:
        """One at a time."""
        return 1

    def probe(self, layer: Layer) -> Probe:
        """Return the layer by itself: no neighbour changes its figures."""
        return alone(layer)


class UntimedDevice(NeverTimed):
    """A device whose figures are looked up or computed, and on which nothing runs."""

    @property
    def runtime(self) -> None:
        """Nothing is executed."""
        return None
