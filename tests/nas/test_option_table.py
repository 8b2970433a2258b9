"""Every option of every section, by the table itself: what nobody can mean is refused, from a file and from
Python alike, and the error names the option and what is allowed.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.options import Option, Range, options
from hw_profiles.registry import DEVICES
from hw_profiles.runtimes.plugin import builtin_options, device_kind
from nas.run.config import DeviceSection, RunConfig, section_options
from nas.run.config_file import parse_config
from supernet.train.config import QuantizedPhase
from supernet.train.finetune import FineTuning

LONG = 10**100_000
TABLE = section_options()
OTHERS = {"quantized": QuantizedPhase, "finetune": FineTuning}  # what sections become


def nonsense(option: Option) -> Iterator[Any]:
    """Values that no number of this option can mean."""
    assert option.range is not None, f"{option.name} has no range"
    low, high = option.range.low, option.range.high
    yield from (math.nan, -math.inf, 10**400, LONG, -LONG, True, "1", "\u0663", [], [[1]], {}, None)
    yield from (() if option.range.besides == math.inf else (math.inf,))
    yield from (low - 1, high + 1, low if option.range.above else low - 1e-3)
    yield from (high if option.range.below else high * 2 + 1,)
    if option.kind is int:
        yield from (low + 0.5, float(low))


def texts(option: Option) -> Iterator[Any]:
    """Values that no text of this option can mean."""
    yield from (1, 1.5, True, [[1]], {}, None, "a\x00b", "a\nb", "x" * 10_000, LONG)


def accepted(use: Callable[[Any], object], option: Option, values: Iterator[Any]) -> list[str]:
    """What was not refused in one line that names the option and what is allowed."""
    offenders = []
    for value in values:
        if value is None and (option.optional or not option.name):
            continue
        try:
            use(value)
        except TrilobitError as error:
            line = str(error)
            if "\n" in line or len(line) > 600 or option.name not in line or option.allowed not in line:
                offenders.append(f"{option.name}: {line[:200]}")
        else:
            offenders.append(
                f"{option.name} = {type(value).__name__} {repr(value)[:40] if value is not LONG else 'long'}"
            )
    return offenders


def named(option: Option) -> dict[str, str]:
    """Return the device that an option is of, as its section names it; nothing for the others."""
    if option not in builtin_options().values():
        return {}
    owner = next(name for name in DEVICES if option.key in device_kind(name).table)
    required = device_kind(owner).required
    return {"name": f"{owner}:none" if required - {option.key} else owner}


def in_file(option: Option) -> Callable[[Any], object]:
    def use(value: Any) -> object:
        value = [value] if option.many else value
        document: dict[str, Any] = {option.key: value}
        if option.section:
            document = {option.section: {**named(option), option.key: value}}
        return parse_config(document, origin="mine.toml")

    return use


def in_python(option: Option) -> Callable[[Any], object]:
    def use(value: Any) -> object:
        if named(option):
            return DeviceSection(**named(option), options={option.key: value})
        section = getattr(RunConfig(), option.section) if option.section else RunConfig()
        return replace(section, **{option.key: (value,) if option.many else value})

    return use


@pytest.mark.parametrize("way", [in_file, in_python])
def test_numbers_that_nobody_can_mean_are_refused(way: Callable[[Option], Callable[[Any], object]]) -> None:
    numbers = [option for option in TABLE.values() if option.kind in (int, float)]
    assert len(numbers) > 45
    offenders = [o for option in numbers for o in accepted(way(option), option, nonsense(option))]
    assert not offenders, "\n".join(offenders)


@pytest.mark.parametrize("way", [in_file, in_python])
def test_texts_that_nobody_can_mean_are_refused(way: Callable[[Option], Callable[[Any], object]]) -> None:
    others = [option for option in TABLE.values() if option.kind is str]
    offenders = [o for option in others for o in accepted(way(option), option, texts(option))]
    assert not offenders, "\n".join(offenders)


@pytest.mark.parametrize("way", [in_file, in_python])
def test_flags_are_true_or_false(way: Callable[[Option], Callable[[Any], object]]) -> None:
    flags = [option for option in TABLE.values() if option.kind is bool]
    offenders = [o for option in flags for o in accepted(way(option), option, iter((0, 1, "true", None, [])))]
    assert not offenders, "\n".join(offenders)


def test_every_field_is_an_option() -> None:
    listed = {option.name for option in TABLE.values()}
    sections = {f.name: getattr(RunConfig(), f.name) for f in fields(RunConfig)}
    names = {
        f"{s}.{f.name}" for s, v in sections.items() if hasattr(v, "__dataclass_fields__") for f in fields(v)
    }
    devices = {f"device.{key}" for name in DEVICES for key in device_kind(name).table}
    assert listed == names - {"device.options"} | devices | {"seed"}


def test_every_number_has_a_finite_range_that_holds_its_default() -> None:
    more = [option for name, kind in OTHERS.items() for option in options(kind, name)]
    for option in (*TABLE.values(), *more):
        if option.kind in (int, float):
            assert option.range is not None, option.name
            assert math.isfinite(option.range.low), option.name
            assert math.isfinite(option.range.high), option.name
            assert option.optional or option.many or option.default in option.range, option.name


def test_ends_of_a_range_are_in_it_unless_it_says_otherwise() -> None:
    assert 0 in Range(0, 1)
    assert 1 in Range(0, 1)
    assert 0 not in Range(0, 1, above=True)
    assert 1 not in Range(0, 1, below=True)
    assert math.nan not in Range(0, 1)
    assert math.inf in Range(0, 1, besides=math.inf)


@pytest.mark.parametrize("text", ["\u0663", "1_0", "0x1", "1e1", "nan", "", " ", "1" * 5000, "--1", "inf"])
def test_whole_numbers_are_read_in_ascii_digits_only(text: str) -> None:
    with pytest.raises(TrilobitError, match=r"device\.threads must be a whole number from 1 to 1,024, got"):
        TABLE["device.threads"].read(text)


def test_shares_may_be_written_in_percent() -> None:
    assert TABLE["profile.share"].read("20%") == 0.2
    assert TABLE["search.latency_confidence"].read("0.95") == TABLE["search.latency_confidence"].read("95%")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("search.searcher", "nsga4", "did you mean 'nsga3' or 'nsga2'"),
        ("space.name", "digits-mbcon", "did you mean 'digits-mbconv'"),
        ("device.name", "orf", "did you mean 'ort'"),
        ("fit.predictor", "boostin", "did you mean 'boosting'"),
        ("data.source", "imagfolder:x", "did you mean 'imagefolder'"),
        ("sample.strategy", "radom", "did you mean 'random'"),
    ],
)
def test_a_name_that_is_nearly_known_is_suggested(key: str, value: str, message: str) -> None:
    with pytest.raises(TrilobitError, match=message):
        TABLE[key].check(value)
