"""Kill a node repeatedly under load: every series must arrive once, equal to that of an undisturbed run.

Example:
    python benchmarks/node_kills.py --kills 100 --series 20 --down 120 --seed 1
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

from node_kills import check, check_spool, run_kills, undisturbed


def main() -> None:
    """Run, and print one line; a failed assertion says what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--series", type=int, default=20)
    parser.add_argument("--slices", type=int, default=8)
    parser.add_argument("--down", type=float, default=120.0, help="seconds for which the destination is down, twice")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, weights, expected = undisturbed(folder / "plain", asked.series, asked.slices)
        began = time.monotonic()
        there, node = run_kills(
            folder / "node", source, weights, seed=asked.seed, kills=asked.kills, down_s=asked.down, most_steps=30
        )
        check(there, expected, asked.kills)
        check_spool(node, asked.series, asked.slices)
    twice = sum(there.times.values()) - len(there.times)
    print(
        f"{asked.kills} kills, {asked.series} series of {asked.slices} slices, seed {asked.seed}: every object of {len(expected)} arrived, equal to an "
        f"undisturbed run; {twice} were sent a second time; {time.monotonic() - began:.0f} s"
    )


if __name__ == "__main__":
    main()
