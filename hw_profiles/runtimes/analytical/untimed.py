"""What devices have in common on which nothing runs."""

from hw_profiles.graph.layer import Layer
from hw_profiles.measure.in_context import Probe, alone


class UntimedDevice:
    """A device whose figures are looked up or computed: layers stand by themselves, and nothing is timed."""

    @property
    def runtime(self) -> None:
        """Nothing is executed."""
        return None

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
