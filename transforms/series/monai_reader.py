"""A reader for MONAI's ``LoadImage``, used as ``LoadImaged(keys="image", reader=ScanReader())``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import PathLike
from monai.data import ImageReader
from monai.data.utils import affine_to_spacing
from monai.utils import MetaKeys, SpaceKeys

from ct_cncl.transforms.series.scan import Scan, ScanError, ScanSource


class ScanReader(ImageReader):
    """Reads a scan like MONAI's own readers, but by this package's rules: one series in HU, refused if anything is uncertain.

    Args:
        check_hu: as for ``read_scan``.
        allow_irregular: as for ``read_scan``.
    """

    def __init__(self, *, check_hu: bool = True, allow_irregular: bool = False) -> None:
        super().__init__()
        self.check_hu = check_hu
        self.allow_irregular = allow_irregular

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Whether the path exists; its format is checked only when it is read."""
        names = filename if isinstance(filename, (list, tuple)) else [filename]
        return all(
            Path(str(name).rpartition("#")[0] or str(name)).exists() or Path(str(name)).exists() for name in names
        )

    def read(self, data: Sequence[PathLike] | PathLike, **_: Any) -> Scan:
        """Read one scan.

        Raises:
            ScanError: as in ``read_scan``; also if several paths are given.
        """
        from ct_cncl.transforms.series import read_scan

        paths = list(data) if isinstance(data, (list, tuple)) else [data]
        if len(paths) != 1:
            raise ScanError(
                f"{paths[0]}: expected one path per scan but got {len(paths)}; name the folder of the series"
            )
        source = paths[0] if isinstance(paths[0], ScanSource) else str(paths[0])
        return read_scan(source, check_hu=self.check_hu, allow_irregular=self.allow_irregular)

    def get_data(self, img: Scan) -> tuple[np.ndarray, dict[str, Any]]:
        """Return (x, y, z) float32 HU, and metadata with an RAS affine."""
        meta = {
            MetaKeys.AFFINE: img.affine.copy(),
            MetaKeys.ORIGINAL_AFFINE: img.affine.copy(),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.SPATIAL_SHAPE: np.asarray(img.hu.shape),
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),
            "spacing": affine_to_spacing(img.affine),
            "filename_or_obj": str(img.source),
        }
        return img.hu, meta
