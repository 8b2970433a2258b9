"""What values an option may take: stated once, beside its default, as the annotation of its field.

A section of a configuration is a frozen dataclass such as

    @dataclass(frozen=True)
    class Bench:
        threads: Annotated[int, Range(1, 1024)] = 1

        def __post_init__(self) -> None:
            check(self, "bench")

`options` lists its fields as `Option`s. Files, command lines and programs are all held to that one table.
"""

import math
import re
from collections.abc import Callable, Collection, Hashable
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from hw_profiles.documents import MismatchError, parse
from hw_profiles.errors import TrilobitError, did_you_mean, shown
from hw_profiles.registry import plugins

LONGEST = 4096  # characters of a text: what a path may have on Linux
# as people write them: in ASCII, and no longer than a person would
NUMBERS = {
    int: re.compile(r"[+-]?[0-9]{1,20}"),
    float: re.compile(r"[+-]?([0-9]{1,20}\.?[0-9]{0,20}|\.[0-9]{1,20})(e[+-]?[0-9]{1,3})?"),
}
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class Range:
    """Numbers between two ends.

    Attributes:
        low, high: the ends, finite.
        above, below: whether the end itself is left out.
        besides: a value outside that is allowed too, such as infinity for `never`.
        share: whether people may write it in percent.
    """

    low: float
    high: float
    above: bool = False
    below: bool = False
    besides: float | None = None
    share: bool = False

    def __contains__(self, value: float) -> bool:
        if value == self.besides:
            return True
        over = value > self.low if self.above else value >= self.low
        return over and (value < self.high if self.below else value <= self.high)

    def __call__(self, value: float) -> None:
        """Refuse a number outside, as a check of `hw_profiles.documents`.

        Raises:
            ValueError: it is outside.
        """
        if value not in self:
            raise ValueError(f"must be {self}, got {shown(value)}")

    def __str__(self) -> str:
        besides = "" if self.besides is None else f", or {_number(self.besides)}"
        low, high = _number(self.low), _number(self.high)
        if not self.above and not self.below:
            return f"from {low} to {high}{besides}"
        words = "above" if self.above else "at least", "below" if self.below else "at most"
        return f"{words[0]} {low} and {words[1]} {high}{besides}"


@dataclass(frozen=True, eq=False)  # a registry has no hash; it may grow
class OneOf:
    """Names that are known.

    Attributes:
        names: those that are built in; a registry, or some words.
        group: entry points of this group are allowed too.
        suffix: so does whatever ends like this: the name of a file.
        arguments: whether only what stands before the first colon is the name.
        joined: whether a name may be several, joined by `/`.
    """

    names: Collection[str]
    group: str = ""
    suffix: str = ""
    arguments: bool = False
    joined: bool = False

    def __call__(self, value: str) -> None:
        """Refuse a name that is not known, as a check of `hw_profiles.documents`.

        Raises:
            ValueError: it is not known.
        """
        unknown = [name for name in self._names_in(value) if name not in self.names]
        if unknown and not (self.group and set(unknown) <= set(plugins(self.group))):
            raise ValueError(f"must be {self}, got {shown(value)}")

    def _names_in(self, value: str) -> tuple[str, ...]:
        if self.suffix and value.endswith(self.suffix):
            return ()
        name = value.partition(":")[0] if self.arguments else value
        return tuple(name.split("/")) if self.joined else (name,)

    def __str__(self) -> str:
        choices = sorted({*self.names, *plugins(self.group)}) if self.group else [*self.names]
        return f"one of {', '.join(choices)}" + (f", or a file {self.suffix}" if self.suffix else "")


@dataclass(frozen=True)
class Written:
    """Text that a function understands.

    Attributes:
        parse: raises TrilobitError for any other.
        what: how errors call it, with an example.
    """

    parse: Callable[[str], object]
    what: str

    def __call__(self, value: str) -> None:
        """Refuse text that is not understood, as a check of `hw_profiles.documents`."""
        self.parse(value)

    def __str__(self) -> str:
        return self.what


Rule = Range | OneOf | Written
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


@dataclass(frozen=True)
class Option:
    """One field of a section.

    Attributes:
        section, key: where it stands in a configuration.
        kind: of its value, or of every item of a list.
        default: what it is where nothing is said.
        many: whether it is a list.
        optional: whether it may be None: left open.
        rules: what holds of its value, or of every item.
    """

    section: str
    key: str
    kind: type
    default: Any
    many: bool
    optional: bool
    rules: tuple[Rule, ...]

    @property
    def name(self) -> str:
        """As people write it, `section.key`."""
        return f"{self.section}.{self.key}" if self.section else self.key

    @property
    def range(self) -> Range | None:
        """Of a number."""
        return next((rule for rule in self.rules if isinstance(rule, Range)), None)

    @property
    def allowed(self) -> str:
        """What is allowed, in words."""
        named = [str(rule) for rule in self.rules if not isinstance(rule, Range)]
        item = named[0] if named else _KINDS[self.kind]
        item += "".join(f" {rule}" for rule in self.rules if isinstance(rule, Range))
        return f"a list, each item {item}" if self.many else item

    def check(self, value: Any) -> None:
        """Refuse a value.

        Raises:
            TrilobitError: it is of another type, or not allowed; says what is.
        """
        if value is None and self.optional:
            return
        if self.many and not isinstance(value, tuple):
            raise self._refusal(value)
        for item in value if self.many else (value,):
            self._check_item(item)

    def _check_item(self, item: Any) -> None:
        if self.range is not None and isinstance(item, float) and item == self.range.besides:
            return
        if isinstance(item, str) and (len(item) > LONGEST or _UNPRINTABLE.search(item)):
            raise self._refusal(item, f", of at most {LONGEST:,} characters that can be printed")
        try:
            parse(self.kind, item)
            if item == self.default and not self.many:
                return
            for rule in self.rules:
                rule(item)
        except (MismatchError, ValueError):
            raise self._refusal(item, self._advice(item)) from None  # not the rule's: it names no option
        except TrilobitError as error:
            raise TrilobitError(f"{self.name}: {error}") from None

    def _advice(self, item: Any) -> str:
        choices = [name for rule in self.rules if isinstance(rule, OneOf) for name in rule.names]
        return did_you_mean(item, choices) if isinstance(item, str) else ""

    def _refusal(self, value: Any, advice: str = "") -> TrilobitError:
        return TrilobitError(f"{self.name} must be {self.allowed}, got {shown(value)}{advice}")

    def read(self, text: str) -> Any:
        """Return the value that people write as `text`, one item of a list; a share may be in percent.

        Raises:
            TrilobitError: it is not allowed; says what is.
        """
        value: Any = text
        if self.kind in NUMBERS:
            value = self._read_number(text)
        self._check_item(value)
        return value

    def _read_number(self, text: str) -> Any:
        share = self.range is not None and self.range.share and text.endswith("%")
        number = text.removesuffix("%") if share else text
        if NUMBERS[self.kind].fullmatch(number.strip(" ").lower()) is None:
            raise self._refusal(text)
        return float(number) / 100 if share else self.kind(number)


def options(section_type: Any, section: str) -> tuple[Option, ...]:
    """Return the options of a section, a dataclass, in the order of its fields; a field that holds no plain
    value has none.
    """
    return _options(section_type, section)


@cache
def _options(section_type: Hashable, section: str) -> tuple[Option, ...]:
    kind: Any = section_type
    hints = get_type_hints(kind, include_extras=True)
    listed = (_option(section, f.name, hints[f.name], f.default) for f in fields(kind) if f.init)
    return tuple(option for option in listed if option is not None)


def check(settings: Any, section: str) -> None:
    """Refuse a section with a value that is not allowed; for its `__post_init__`.

    Raises:
        TrilobitError: names the option and says what is allowed.
    """
    for option in options(type(settings), section):
        option.check(getattr(settings, option.key))


def _option(section: str, key: str, hint: Any, default: Any) -> Option | None:
    """Return the option that an annotation describes; None where it describes no plain value."""
    rules: list[Rule] = []
    many = optional = False
    while hint not in _KINDS:
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is Annotated:
            rules.extend(hint.__metadata__)
        elif origin is tuple and arguments[-1] is Ellipsis:
            many = True
        elif origin is Literal:
            rules.append(OneOf(arguments))
            arguments = (str,)
        elif type(None) in arguments:
            optional = True
        else:
            return None
        hint = arguments[0]
    return Option(section, key, hint, None if default is MISSING else default, many, optional, tuple(rules))


def _number(value: float) -> str:
    """Return an end of a range without needless digits."""
    if math.isinf(value):
        return "inf"
    return f"{int(value):,}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:g}"
