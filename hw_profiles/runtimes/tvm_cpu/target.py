"""What is compiled for: a processor by LLVM's name, and the C compiler that links for it."""

import platform
import shutil
from collections.abc import Collection
from dataclasses import dataclass, field

import tvm

from hw_profiles.errors import TrilobitError
from hw_profiles.measure.host import cpu_flags

# those of x86 that kernels, or LLVM by itself, use
INSTRUCTIONS = {
    *("ssse3", "sse4.2", "avx", "avx2", "fma", "bmi2", "gfni", "avxvnni"),
    *("avx512f", "avx512cd", "avx512dq", "avx512vl", "avx512bw", "avx512vbmi", "avx512vbmi2", "avx512vnni"),
    *("avx512bitalg", "avx512vpopcntdq", "avx512ifma", "avx512fp16", "avx512bf16"),
}
# processors by what they have, the most first
LEVELS = (
    *("icelake-server", "cascadelake", "x86-64-v4"),
    *("alderlake", "x86-64-v3", "x86-64-v2", "x86-64"),
)
PACKAGES = {"aarch64-linux-gnu": "gcc-aarch64-linux-gnu"}  # Debian's, by the triple they compile for


@dataclass(frozen=True)
class TvmTarget:
    """A processor.

    Attributes:
        mcpu: LLVM's name of it, for example `znver4`.
        mtriple: for example `aarch64-linux-gnu`; empty for this machine's.
        features: what it has, as LLVM calls that: `avx2`, `dotprod`.
        vector_bytes: size of its vector registers.
        registers: how many of those there are.

    Raises:
        TrilobitError: LLVM does not know that processor.
    """

    mcpu: str
    mtriple: str = ""
    features: frozenset[str] = field(init=False, repr=False)
    vector_bytes: int = field(init=False)
    registers: int = field(init=False)

    def __post_init__(self) -> None:
        target = self._checked()
        features = frozenset(map(str, tvm.target.codegen.llvm_get_cpu_features(target)))
        wide = 64 if "avx512f" in features else 32 if "avx2" in features else 16
        derived = {
            "features": features,
            "vector_bytes": wide,
            "registers": 32 if features & {"avx512f", "neon"} else 16,
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    def _checked(self) -> tvm.target.Target:
        try:
            known = tvm.target.codegen.llvm_is_valid_cpu(self.mcpu, self.mtriple or _host_triple())
        except Exception as error:
            raise TrilobitError(
                f"LLVM has no target {self.mtriple!r}: {str(error).splitlines()[-1]}"
            ) from None
        if not known:
            raise TrilobitError(
                f"LLVM does not know the processor {self.mcpu!r} of {self.mtriple or _host_triple()!r}; "
                "`clang --print-supported-cpus` lists those it knows"
            )
        return self.tvm_target()

    @property
    def name(self) -> str:
        """As `parse_target` reads it: `llvm -mtriple=aarch64-linux-gnu -mcpu=cortex-a76`."""
        triple = f" -mtriple={self.mtriple}" if self.mtriple else ""
        return f"llvm{triple} -mcpu={self.mcpu}"

    @property
    def shifts_signs(self) -> bool:
        """Whether it has an arithmetic shift for vectors of 64-bit numbers."""
        return bool(self.features & {"avx512f", "neon"})

    @property
    def local(self) -> bool:
        """Whether this machine runs what is compiled for it."""
        return self == host_target() or (not self.mtriple and _runs_here(self))

    def tvm_target(self) -> tvm.target.Target:
        """Return it as TVM wants it: a dict, since this version takes no strings."""
        triple = {"mtriple": self.mtriple} if self.mtriple else {}
        return tvm.target.Target({"kind": "llvm", "mcpu": self.mcpu, "num-cores": 1, **triple})

    def compiler(self) -> str:
        """Return the C compiler that links for it.

        Raises:
            TrilobitError: it is not installed.
        """
        name = f"{self.mtriple}-gcc" if self.mtriple else "cc"
        if shutil.which(name) is None:
            package = PACKAGES.get(self.mtriple, "gcc" if not self.mtriple else name)
            raise TrilobitError(
                f"the C compiler {name!r} is needed to link for {self.name!r}; "
                f"install it, on Debian with: apt-get install {package}"
            )
        return name


def host_target() -> TvmTarget:
    """Return this machine's processor, as LLVM calls it.

    LLVM goes by model numbers. Where a virtual machine hides instructions that the model has, it is the best
    processor that has none of those.
    """
    model = TvmTarget(str(tvm.target.codegen.llvm_get_system_cpu()))
    flags = {_letters(flag) for flag in cpu_flags()}
    if not flags or _used(model) <= flags:
        return model
    return next(level for level in map(TvmTarget, LEVELS) if _used(level) <= flags)


def board_target(machine: str, flags: Collection[str]) -> TvmTarget:
    """Return the processor to compile for on a board, by what its system says that it has.

    Args:
        machine: instruction set, as `uname -m` calls it.
        flags: of the processor, as Linux lists them.

    Raises:
        TrilobitError: there are no kernels for that instruction set.
    """
    triple = "" if machine == platform.machine() else f"{machine}-linux-gnu"
    if machine == "aarch64":
        return TvmTarget("cortex-a76" if "asimddp" in flags else "cortex-a53", triple)
    if machine != "x86_64":
        raise TrilobitError(f"there are no kernels for {machine!r}; for aarch64 and x86_64 there are")
    letters = set(map(_letters, flags))
    levels = (TvmTarget(level, triple) for level in LEVELS)
    return next((level for level in levels if _used(level) <= letters), TvmTarget(LEVELS[-1], triple))


def _used(target: TvmTarget) -> set[str]:
    return {_letters(feature) for feature in target.features & INSTRUCTIONS}


def _letters(name: str) -> str:
    """Return the letters and digits of a name: LLVM writes `avx512vnni` and `sse4.2` where Linux has
    `avx512_vnni` and `sse4_2`.
    """
    return "".join(filter(str.isalnum, name))


def parse_target(text: str) -> TvmTarget:
    """Return a target from a name that a person writes.

    `host`; `llvm -mcpu=znver4`; `llvm -mtriple=aarch64-linux-gnu -mcpu=cortex-a76`; or shorter
    `aarch64-linux-gnu:cortex-a76` and `znver4`.

    Raises:
        TrilobitError: none of these, or a processor that LLVM does not know.
    """
    if text == "host":
        return host_target()
    words = text.split()
    if len(words) == 1 and words[0] != "llvm":
        triple, _, cpu = text.rpartition(":")
        return TvmTarget(cpu, triple)
    options = dict(word.removeprefix("-").partition("=")[::2] for word in words[1:])
    if not words or words[0] != "llvm" or not {"mcpu"} <= set(options) <= {"mcpu", "mtriple"}:
        raise TrilobitError(
            f"not a TVM target: {text!r}; write 'host', 'llvm -mcpu=<cpu>', "
            "'llvm -mtriple=<triple> -mcpu=<cpu>' or '<triple>:<cpu>'"
        )
    return TvmTarget(options["mcpu"], options.get("mtriple", ""))


def _host_triple() -> str:
    return str(tvm.target.codegen.llvm_get_system_triple())


def _runs_here(target: TvmTarget) -> bool:
    """Return whether this machine has the vector instructions that LLVM uses for that processor."""
    return _used(target) <= _used(host_target())
