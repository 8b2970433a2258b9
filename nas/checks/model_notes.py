"""What the operations of somebody's file say of it before anything is run."""

from collections.abc import Mapping

QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulNBits")
_QUANTIZED_ENDS = ("Integer", "IntegerToFloat")
CONTROL = ("If", "Loop", "Scan")


def notes_on(operations: Mapping[str, int], prepared: Mapping[str, int]) -> tuple[str, ...]:
    """Return what the operations of a file, and those that are left once it is prepared, say of it."""
    notes = []
    quantized = {op: n for op, n in operations.items() if is_quantized(op)}
    if quantized:
        listed = ", ".join(f"{n} {op}" for op, n in quantized.items())
        notes.append(
            f"is quantized already ({listed}): that stays as it is, only what is in fp32 can be tuned"
        )
    inner = [op for op in CONTROL if op in prepared]
    if inner:
        notes.append(
            f"keeps what stands inside {', '.join(inner)} as it is; its multiply-adds are not counted"
        )
    return tuple(notes)


def is_quantized(op: str) -> bool:
    """Return whether an operation computes on codes, or makes or reads them."""
    return op in QUANTIZED or op.startswith("QLinear") or op.endswith(_QUANTIZED_ENDS)
