"""Number formats by name, and the precision that a choice of a layer stands for."""

from pkgutil import resolve_name

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import FLOATS
from hw_profiles.reference.integer_sums import IntegerSums
from hw_profiles.registry import load
from supernet.formats.format import Format
from supernet.formats.policy import Precision
from supernet.registry import FORMATS, REDUCED


def load_format(name: str) -> Format:
    """The number format registered as `name`.

    Raises:
        TrilobitError: no such format.
    """
    number_format: Format = load("trilobit.formats", FORMATS, name)
    return number_format


def load_weight_format(name: str, sums: IntegerSums) -> Format:
    """Return what `name` means for the weights of a network that is made for a device which adds so: int8 has
    codes of 7 bits where sums may saturate, all else is the same everywhere.

    Raises:
        TrilobitError: no such format.
    """
    if not sums.reduced or name not in REDUCED:
        return load_format(name)
    reduced: Format = resolve_name(REDUCED[name])
    return reduced


def parse_precision(choice: str) -> Precision:
    """The number formats that one choice of a layer stands for: `int4` are 4-bit weights on the activations
    that such weights usually run on, `int4/int6` are 4-bit weights on 6-bit activations.

    >>> parse_precision("int4"), parse_precision("int4/int6")
    (Precision(weight='int4', activation='int8'), Precision(weight='int4', activation='int6'))

    Raises:
        TrilobitError: no such format, or not one that activations of these weights can have.
    """
    weight, given, activation = choice.partition("/")
    usual = load_format(weight).activation_format
    if not given:
        return Precision(weight, usual)
    known = load_format(activation)
    if usual in FLOATS or known.activation_params(0.0, 1.0) is None:
        if usual == activation:
            return Precision(weight, activation)
        raise TrilobitError(
            f"{choice!r}: {weight} weights do not run on {activation} activations; floating-point weights "
            "run on activations of their own format, integer weights on int8, int6 or int4"
        )
    return Precision(weight, activation)
