"""The packages that only the node needs."""

from __future__ import annotations

from ct_cncl.pipeline.common.extras import require


def require_node() -> None:
    """Refuse to continue without them.

    Raises:
        ConfigError: naming the extra that brings them.
    """
    for package, purpose in (
        ("pynetdicom", "to speak DICOM"),
        ("starlette", "to show the page"),
        ("uvicorn", "to show the page"),
    ):
        require(package, extra="node", purpose=purpose)
