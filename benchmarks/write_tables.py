"""Writes docs/benchmarks.md from benchmarks/results/*.json: no figure there is typed by hand."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAD = """# Benchmarks

Written by `python benchmarks/write_tables.py` from the last full results in `benchmarks/results/`.
`make bench` measures again what needs nothing but the data; quantized_transfer, supernet_accuracy and
joint_vs_sequential need `--run` folders of CIFAR-10 too. Peers run in the same process, interleaved where
time is compared.

Every figure that depends on int8 kernels depends on the processor's instruction set, which each heading
names. Results from before 29 November 2026 did not record it: their int8 latencies, and all of TVM's, are of
a processor with AVX512-VNNI.

Rows of `cifar-mbconv` in few_measurements and profile_accuracy are of the space as it was before
21 November 2026, 16:00 (stem of stride 2, 953 units); the space of today has 701.

The second supernet_accuracy is of the shipped supernet (three random architectures, each also trained alone
with both parts of its recipe); the first is of its first part after a quantized phase. The times of
predictor_quality are of a machine under load. latency_transfer is of parts that ran beside each other on such
a machine; so were the NAS-Bench-201 rows of search_quality, whose tasks were measured one by one.

space_design: SpaceEvo's published tables hold their authors' predicted latencies, and rows of all resolutions
are drawn together, since what was released does not say which is which; which spaces were published is not in
the data, so they are not scored; 1,000 evaluations a search where the authors had 5,000. At the tightest
limits (8 and 5 ms) a score rests on few draws.

joint_apq: the accuracy model knows 90 networks of a supernet that was trained for 250 steps on images of 40
pixels (31 to 38 %, cross-validated tau .49): real, but it says only which of its networks are better. Ours
was chosen on seeds 0 to 4; on seeds 5 to 9 it had more hypervolume than APQ's best setting five times too.
quantized_transfer: the first is of 435 samples scored on 2,000 drawn images; 60 rows test, so that seeds
differ by 2 points. The second is of 1,868 samples that were scored on the first 2,000 images of
search-validation, which are of four classes only (mended since): it compares predictors all the same, but
says nothing of accuracy on all classes; at 1,114 rows `auto` had left its Gaussian process out for lack of
time (mended since; `gp` is beside it).

predictor_quality and latency_transfer are of the predictors before 29 November 2026 (members of `auto`
weighed on the targets' own scale, latency always in seconds, other devices on whole tables only) and of a
LightGBM with 300 trees on all columns; both wait for a quiet machine. warm_start starts `ridge`,
on one core of a busy machine.

joint_vs_sequential is of one seed and without learning from proposals (`--rounds 0 --seeds 1`).
"""


def main() -> None:
    """One section per result file."""
    paths = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    sections = [section(json.loads(path.read_text())) for path in paths]
    (ROOT / "docs" / "benchmarks.md").write_text(HEAD + "".join(sections))


def section(document: dict) -> str:
    """A heading, the machine, a table."""
    machine = document["machine"]
    instructions = machine.get("instruction_set", "instruction set not recorded")
    where = f"{machine['cpu']} ({instructions}), {machine['cores']} cores, load {machine['load_1min']:.1f}"
    name = document["benchmark"]
    script = name.removesuffix("_tvm")  # the same script on another device
    lines = [f"\n## {name}\n", f"`benchmarks/{script}.py` on {where}\n"]
    lines += ["| task | metric | ours | spread | peers | target |", "|---|---|---|---|---|---|"]
    for row in document["rows"]:
        peers = "; ".join(f"{name} {readable(value)}" for name, value in row["peers"].items())
        target = "" if row["target"] is None else readable(row["target"])
        unit = f", {row['unit']}" if row["unit"] else ""
        metric = f"{row['metric']}{unit} ({row['better']} is better)"
        cells = (row["task"], metric, readable(row["ours"]), readable(row["spread"]), peers, target)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def readable(value: float) -> str:
    """Thousands with commas, small numbers with four digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


if __name__ == "__main__":
    main()
