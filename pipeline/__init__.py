"""Training, denoising and evaluation. The Python interface is ``from ct_cncl.pipeline import denoise, simulate, evaluate, noise``.

``ct_cncl`` itself is an empty namespace over two folders, so these functions live here. Each is imported on first use, because
importing torch and MONAI takes seconds.

>>> from ct_cncl import pipeline
>>> pipeline.__all__
['denoise', 'evaluate', 'noise', 'simulate']
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ct_cncl.pipeline.api.evaluate import evaluate
    from ct_cncl.pipeline.api.noise import noise
    from ct_cncl.pipeline.api.simulate import simulate
    from ct_cncl.pipeline.inference.api import denoise

__all__ = ["denoise", "evaluate", "noise", "simulate"]

_PLACES = {
    "denoise": "ct_cncl.pipeline.inference.api",
    "evaluate": "ct_cncl.pipeline.api.evaluate",
    "noise": "ct_cncl.pipeline.api.noise",
    "simulate": "ct_cncl.pipeline.api.simulate",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
