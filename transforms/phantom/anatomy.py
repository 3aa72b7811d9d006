"""The public function of this package: a simplified CT of one invented patient."""

from __future__ import annotations

import numbers
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from ct_cncl.transforms.phantom import lesions as spots
from ct_cncl.transforms.phantom.bowel import Bowel, draw_bowel, paint_bowel
from ct_cncl.transforms.phantom.canvas import Canvas, new_canvas
from ct_cncl.transforms.phantom.heart import (
    GreatVessels,
    draw_great_vessels,
    paint_great_vessels,
    paint_heart,
    paint_vessel_bed,
)
from ct_cncl.transforms.phantom.liver import LiverTrees, grow_liver_trees, paint_gall_bladder, paint_liver
from ct_cncl.transforms.phantom.lungs import LungTrees, grow_lung_trees, paint_airways, paint_lungs
from ct_cncl.transforms.phantom.patient import Patient, draw_patient
from ct_cncl.transforms.phantom.skeleton import paint_ribs, paint_scapulae, paint_spine, paint_sternum
from ct_cncl.transforms.phantom.table import paint_table
from ct_cncl.transforms.phantom.tissues import Array, Phantom, PhantomLesion
from ct_cncl.transforms.phantom.trunk import angle, outside_wall
from ct_cncl.transforms.phantom.viscera import Glands, draw_glands, paint_glands, paint_kidney, paint_spleen
from ct_cncl.transforms.phantom.wall import paint_deep_muscles, paint_muscles, paint_outline, skin_distance

FULL_SIZE = 512
BLUR_PIXELS = 0.5
"""Standard deviation of the Gaussian point spread function, pixels."""
_REGIONS = ("chest", "abdomen", None)


@dataclass(frozen=True)
class _Anatomy:
    """A patient with the vessels, bowel and glands drawn for it."""

    patient: Patient
    lungs: LungTrees
    vessels: GreatVessels
    liver: LiverTrees
    bowel: Bowel
    glands: Glands


def anatomical_phantom(
    seed: int,
    *,
    slices: int = 4,
    size: int = 512,
    region: str | None = None,
    slice_spacing_mm: float = 5.0,
) -> Phantom:
    """Make a noise-free, simplified CT of one patient; the same arguments give identical results, bit for bit.

    Habitus, pixel spacing (0.65 to 0.92 mm at 512 pixels), contrast phase, organs and lesions are drawn from the seed. The
    patient does not depend on the other arguments, except that ``region`` moves the slab.

    Args:
        seed: seed of all random choices, 0 or more.
        slices: number of slices, 1 or more.
        size: pixels per side, 16 or more; the field of view in mm does not depend on it.
        region: "chest", "abdomen", or None for either; the seed decides where in the region the slab lies.
        slice_spacing_mm: distance between slices in mm.

    Returns:
        HU, labels and affine of a (size, size, slices) volume, and the lesions in it. HU range from -1000 (air) to
        about 900 (bone). Axis 0 is the image column (0: patient's right), axis 1 the row (0: anterior), axis 2 increases
        towards the head: ``hu[:, :, k].T`` is a slice in the usual orientation.

    Raises:
        ValueError: an argument is out of range.

    >>> phantom = anatomical_phantom(7, slices=2, size=32, region="abdomen")
    >>> phantom.hu.shape, phantom.hu.dtype.name
    ((32, 32, 2), 'float32')
    """
    _check(seed, slices, size, region, slice_spacing_mm)
    anatomy = _draw(int(seed), region)
    patient = anatomy.patient
    px = patient.spacing * FULL_SIZE / size
    axis = ((np.arange(size) - (size - 1) / 2) * px).astype(np.float32)
    middle = patient.centre * patient.frame.scale[2]
    heights = [middle + (k - (slices - 1) / 2) * slice_spacing_mm for k in range(slices)]
    top = _table_top(patient)
    canvases: list[Canvas] = []
    livers: list[spots.LiverSlice] = []
    for height in heights:
        canvas = new_canvas(patient.frame, patient.fields, axis, axis, height)
        liver = _paint_slice(canvas, anatomy, top)
        canvases.append(canvas)
        if liver is not None:
            livers.append(spots.LiverSlice(canvas, liver[0] * np.float32(patient.frame.mean), liver[1]))
    spheres = spots.draw_lesions(np.random.default_rng((int(seed), 7)), livers)
    for piece in livers:
        for sphere in spheres:
            spots.paint_lesion(piece, sphere)
    affine = np.diag([-px, -px, float(slice_spacing_mm), 1.0])
    affine[:3, 3] = [px * (size - 1) / 2, px * (size - 1) / 2, -slice_spacing_mm * (slices - 1) / 2]
    return Phantom(
        hu=np.stack([blur(canvas.hu, BLUR_PIXELS) for canvas in canvases], axis=2),
        labels=np.stack([canvas.labels for canvas in canvases], axis=2),
        affine=affine,
        lesions=tuple(
            PhantomLesion((-s.centre[0], -s.centre[1], s.centre[2] - middle), s.radius, s.contrast) for s in spheres
        ),
    )


def _check(seed: int, slices: int, size: int, region: str | None, slice_spacing_mm: float) -> None:
    for name, value, least in (("seed", seed, 0), ("slices", slices, 1), ("size", size, 16)):
        if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
            raise ValueError(f"Expected {name} to be a whole number of at least {least}, but got {value!r}.")
    if region not in _REGIONS:
        raise ValueError(f"Expected region 'chest', 'abdomen' or None, but got {region!r}.")
    if not (np.isfinite(slice_spacing_mm) and slice_spacing_mm > 0):
        raise ValueError(f"Expected slice_spacing_mm above 0 mm, but got {slice_spacing_mm!r}.")


def _draw(seed: int, region: str | None) -> _Anatomy:
    """Draw everything; each part has its own random stream, so that a change in one part leaves the others as they are."""
    streams = [np.random.default_rng((seed, k)) for k in range(6)]
    patient = draw_patient(streams[0], region)
    return _Anatomy(
        patient=patient,
        lungs=grow_lung_trees(streams[1], patient),
        vessels=draw_great_vessels(streams[2], patient),
        liver=grow_liver_trees(streams[3], patient),
        bowel=draw_bowel(streams[4], patient),
        glands=draw_glands(streams[5], patient),
    )


def _table_top(patient: Patient) -> float:
    """Lowest point of the table's surface, y in picture mm: below the back of the patient along the whole slab."""
    axis = np.arange(-140, 141, 4, dtype=np.float32) * np.float32(1.6)
    lowest = -np.inf
    for offset in (-20.0, 0.0, 20.0):
        height = (patient.centre + offset) * patient.frame.scale[2]
        canvas = new_canvas(patient.frame, patient.fields, axis, axis, height)
        t = outside_wall(canvas.u, canvas.v, canvas.z, patient).astype(np.float32)
        distance, _ = skin_distance(canvas, patient, t, angle(canvas.u, canvas.v))
        surface = axis[None, :] + np.float32(patient.table.curve) * (axis * axis)[:, None]
        lowest = max(lowest, float(surface[distance < 0].max()))
    return lowest + patient.table.gap + patient.table.mattress


def _paint_slice(canvas: Canvas, anatomy: _Anatomy, table_top: float) -> tuple[Array, Array] | None:
    """Paint one slice from the outside in; returns the result of :func:`paint_liver`."""
    patient = anatomy.patient
    paint_table(canvas, patient.table, table_top)
    t = outside_wall(canvas.u, canvas.v, canvas.z, patient).astype(np.float32)
    phi = angle(canvas.u, canvas.v)
    paint_outline(canvas, patient, t, phi)
    paint_muscles(canvas, patient, t, phi)
    paint_lungs(canvas, patient, anatomy.lungs)
    paint_vessel_bed(canvas)
    paint_deep_muscles(canvas, patient, t)
    liver = paint_liver(canvas, patient, anatomy.liver)
    paint_spleen(canvas, patient)
    paint_kidney(canvas, patient, "right")
    paint_kidney(canvas, patient, "left")
    paint_bowel(canvas, patient, anatomy.bowel)
    paint_glands(canvas, patient, anatomy.glands)
    paint_gall_bladder(canvas, patient)
    paint_great_vessels(canvas, patient, anatomy.vessels)
    paint_heart(canvas, patient)
    paint_airways(canvas, anatomy.lungs)
    paint_ribs(canvas, patient, t, phi)
    paint_scapulae(canvas, patient, t, phi)
    paint_sternum(canvas, patient)
    paint_spine(canvas, patient)
    return liver


def blur(image: Array, sigma: float) -> Array:
    """Gaussian blur of ``image`` (columns, rows) with a standard deviation of ``sigma`` pixels; edges are repeated."""
    reach = max(1, int(np.ceil(3 * sigma)))
    return gaussian_filter(image, sigma, radius=reach, mode="nearest", output=np.float32)
