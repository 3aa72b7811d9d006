"""Runs ``denoise_scans`` in several processes at once. Imports only once.

    python fork_driver.py WEIGHTS SOURCE=OUT...

Prints what each process said in the end: "done", or its error.
"""

import os
import sys
from pathlib import Path

from ct_cncl.pipeline.inference.api import denoise_scans


def child(weights: Path, source: Path, out: Path, answer: int) -> None:
    text = "done"
    try:
        denoise_scans(source, out, weights=weights, threads=1, progress=False)
    except BaseException as error:
        text = f"{type(error).__name__}: {error}"
    os.write(answer, f"{text}\n".encode())
    os._exit(0)


def main() -> None:
    weights, pairs = Path(sys.argv[1]), [argument.split("=") for argument in sys.argv[2:]]
    read, answer = os.pipe()
    for source, out in pairs:
        if os.fork() == 0:
            child(weights, Path(source), Path(out), answer)
    os.close(answer)
    with os.fdopen(read) as answers:
        print(answers.read(), end="")


if __name__ == "__main__":
    main()
