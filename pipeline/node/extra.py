"""The packages that only the node needs."""

from __future__ import annotations

from ct_cncl.pipeline.common.extras import require


def require_node() -> None:
    """Refuse to continue if a package that only the node needs is missing.

    Raises:
        ConfigError: names the extra that installs the package.
    """
    for package, purpose in (
        ("pynetdicom", "to speak DICOM"),
        ("starlette", "to show the page"),
        ("uvicorn", "to show the page"),
    ):
        require(package, extra="node", purpose=purpose)
