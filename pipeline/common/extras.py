"""Optional packages that only a few commands need; the error for a missing one names the extra that installs it."""

from __future__ import annotations

from importlib.util import find_spec

from ct_cncl.pipeline.common.errors import ConfigError


def is_installed(package: str) -> bool:
    """Whether ``package`` can be imported.

    >>> is_installed("json"), is_installed("no_such_package")
    (True, False)
    """
    return find_spec(package) is not None


def require(package: str, *, extra: str, purpose: str) -> None:
    """Refuse to continue without ``package``.

    Args:
        package: import name of the package.
        extra: the extra of ct-cncl that installs it.
        purpose: what it is needed for, such as "to draw charts".

    Raises:
        ConfigError: the package is not installed.
    """
    if not is_installed(package):
        raise ConfigError(
            f"Expected the package {package} {purpose}, but it is not installed. Run `pip install 'ct-cncl[{extra}]'`."
        )
