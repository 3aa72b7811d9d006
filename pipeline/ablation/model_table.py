"""``ct-cncl models``: the cost of the variants' networks."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from ct_cncl.pipeline.ablation.forward_cost import ForwardCost, gmac, measure_in_process
from ct_cncl.pipeline.common.csv_files import write_csv
from ct_cncl.pipeline.common.errors import ConfigError
from ct_cncl.pipeline.workflow.definition import network_definition
from ct_cncl.pipeline.workflow.overlays import (
    PAPER,
    distinct,
    network_without_weights,
    parameter_count,
    variant,
    variants_with_network,
)

SMALLEST = 16
"""Smallest side of a slice in pixels. Below it, nothing would be left at the lowest level of some networks."""


class ModelRow(NamedTuple):
    """One variant's network."""

    variant: str
    parameters: int
    gmac: float
    """Multiply-accumulate operations for one slice, in 1e9."""
    cost: ForwardCost | None
    """Measured cost; None without timing."""


def model_table(
    names: Sequence[str] = (),
    *,
    size: int = 512,
    timing: bool = True,
    repeats: int = 3,
    threads: int | None = None,
) -> list[ModelRow]:
    """List parameters, operations, seconds and memory of variants, for one ``size`` x ``size`` slice on the CPU.

    Variants that define the same network are measured once.

    Args:
        names: variants (``A``, ``A+B``, ``A+key=value``), listed after the paper's network; empty for all overlays of the bundle that
            define a network.
        size: side of the slice in pixels.
        timing: measure seconds and memory.
        repeats: number of timed passes, after one warm-up.
        threads: threads for torch; None for torch's default.

    Raises:
        ConfigError: a variant is unknown, or a number is too small.
    """
    if size < SMALLEST or repeats < 1 or (threads is not None and threads < 1):
        raise ConfigError(
            f"Expected a size of at least {SMALLEST}, and repeats and threads of at least 1, but got {size}, {repeats} and {threads}."
        )
    chosen = distinct([variant(PAPER), *(variant(name) for name in names if name != PAPER)]) if names else None
    rows: list[ModelRow] = []
    known: dict[str, ModelRow] = {}
    bar = tqdm(chosen or variants_with_network(), unit="variant", disable=not sys.stderr.isatty())
    for one in bar:
        bar.set_description(one.name)
        config = one.config()
        definition = network_definition(config)
        key = json.dumps(definition, sort_keys=True)
        if key not in known:
            network = network_without_weights(definition)
            channels = input_channels(definition)
            cost = (
                measure_in_process(definition, size=size, channels=channels, repeats=repeats, threads=threads)
                if timing
                else None
            )
            known[key] = ModelRow(one.name, parameter_count(network), gmac(network, size=size, channels=channels), cost)
        rows.append(known[key]._replace(variant=one.name))
    return rows


def input_channels(definition: Mapping[str, Any]) -> int:
    """Number of input slices of a network definition: its largest ``in_channels``, or 1 if it has none.

    >>> input_channels({"network_def": {"content": {"in_channels": "@context_slices"}}, "context_slices": 3})
    3
    """
    values = list(_stated_channels(definition))
    return max((definition["context_slices"] if value == "@context_slices" else value for value in values), default=1)


def _stated_channels(node: Any) -> Iterator[Any]:
    for key, value in node.items() if isinstance(node, Mapping) else ():
        if key == "in_channels":
            yield value
        yield from _stated_channels(value)


def table_columns(rows: Sequence[ModelRow], *, size: int) -> tuple[list[str], list[list[Any]]]:
    """The headers, with units, and the values of the table."""
    headers = ["variant", "parameters", f"GMAC ({size} x {size})"]
    measured = [row.cost for row in rows if row.cost is not None]
    if measured:
        headers += [f"CPU seconds a slice ({measured[0].threads} threads)", "peak memory MiB"]
    values = [
        [row.variant, row.parameters, row.gmac, *([row.cost.seconds, row.cost.peak_mib] if row.cost else [])]
        for row in rows
    ]
    return headers, values


def format_models(rows: Sequence[ModelRow], *, size: int) -> str:
    """The table as Markdown.

    >>> print(format_models([ModelRow("tiny", 1234, 0.5, ForwardCost(0.25, 100.0, 2))], size=512))
    | variant | parameters | GMAC (512 x 512) | CPU seconds a slice (2 threads) | peak memory MiB |
    | --- | ---: | ---: | ---: | ---: |
    | tiny | 1,234 | 0.50 | 0.250 | 100 |
    """
    headers, values = table_columns(rows, size=size)
    formats = ["{}", "{:,}", "{:.2f}", "{:.3f}", "{:.0f}"]
    lines = [headers, ["---", *["---:" for _ in headers[1:]]]]
    lines += [[text.format(value) for text, value in zip(formats, row)] for row in values]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_models(path: Path, rows: Sequence[ModelRow], *, size: int) -> Path:
    """Write the table as CSV.

    Raises:
        OutputError: the file cannot be written.
    """
    headers, values = table_columns(rows, size=size)
    write_csv(path, [headers, *values])
    return path
