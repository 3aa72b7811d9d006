"""One patient: every random parameter except the courses of vessels and bowel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ct_cncl.transforms.phantom.frame import PatientFrame, draw_frame
from ct_cncl.transforms.phantom.shapes import Ellipsoid, rotation, triple
from ct_cncl.transforms.phantom.table import PatientTable, draw_table
from ct_cncl.transforms.phantom.waves import Waves, draw_waves

# Typical HU (low, high) by contrast phase: none, arterial, portal venous, late.
PHASES: dict[str, dict[str, tuple[float, float]]] = {
    "none": {
        "aorta": (38, 46), "vein": (38, 46), "liver": (55, 65), "spleen": (44, 52), "cortex": (30, 36),
        "medulla": (29, 34), "pelvis": (2, 12), "myocardium": (44, 50), "muscle": (50, 58), "wall": (36, 44),
        "pancreas": (36, 46),
    },
    "arterial": {
        "aorta": (230, 350), "vein": (60, 110), "liver": (64, 78), "spleen": (100, 130), "cortex": (160, 210),
        "medulla": (55, 80), "pelvis": (2, 12), "myocardium": (90, 120), "muscle": (54, 62), "wall": (75, 100),
        "pancreas": (85, 110),
    },
    "portal": {
        "aorta": (140, 185), "vein": (150, 185), "liver": (98, 120), "spleen": (105, 125), "cortex": (180, 215),
        "medulla": (150, 180), "pelvis": (5, 20), "myocardium": (90, 115), "muscle": (56, 66), "wall": (75, 95),
        "pancreas": (80, 100),
    },
    "late": {
        "aorta": (95, 125), "vein": (95, 125), "liver": (82, 98), "spleen": (85, 100), "cortex": (140, 170),
        "medulla": (140, 165), "pelvis": (120, 400), "myocardium": (75, 95), "muscle": (56, 64), "wall": (65, 80),
        "pancreas": (65, 80),
    },
}  # fmt: skip

# Centre and radii (u, v, z) in mm, turn in the slice plane and tilt in rad, of a nominal patient.
ORGANS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float], float, float]] = {
    "liver_right": ((-68, -4, -76), (76, 88, 100), 0.0, 0.0),
    "liver_left": ((-4, -50, -48), (88, 42, 56), -0.12, 0.0),
    "spleen": ((98, 34, -62), (27, 46, 52), 0.35, 0.1),
    "stomach": ((56, -28, -58), (42, 44, 58), 0.5, 0.25),
    "gall_bladder": ((-46, -40, -106), (15, 21, 30), 0.5, 0.2),
    "kidney_right": ((-60, 34, -132), (27, 31, 54), 0.6, 0.14),
    "kidney_left": ((61, 33, -118), (27, 31, 56), -0.6, -0.14),
    "heart": ((17, -30, 42), (62, 46, 46), -0.62, -0.35),
}


@dataclass(frozen=True)
class Patient:
    """The parameters of a patient; lengths in nominal mm unless stated, densities in HU.

    Attributes:
        spacing: pixel spacing at 512 pixels, picture mm.
        centre: nominal height of the middle of the slab.
        frame: size, turn, place and deformation.
        fat: thickness of the subcutaneous fat. belly: how far visceral fat pushes the abdomen forward.
        muscle: factor on muscle thickness. streaks: fat in muscle, 0 to 1. female: breasts.
        density: HU by tissue. lung: (mean HU, gain to the back in HU per mm). bone: (cortex, marrow) HU.
        calcified: whether the aorta has calcified plaques.
        organs: ellipsoids from which the organs are made.
        rib_shift: offset of the ribs along z, mm. table: the patient table.
        fields: smooth random fields by name, in picture mm.
    """

    spacing: float
    centre: float
    frame: PatientFrame
    fat: float
    belly: float
    muscle: float
    streaks: float
    female: bool
    density: dict[str, float]
    lung: tuple[float, float]
    bone: tuple[float, float]
    calcified: bool
    organs: dict[str, Ellipsoid]
    rib_shift: float
    table: PatientTable
    fields: dict[str, Waves]


def draw_patient(rng: np.random.Generator, region: str | None) -> Patient:
    """Draw a patient whose slab lies in ``region``: "chest", "abdomen" or None, from upper chest to kidneys."""
    low, high = {"chest": (15.0, 150.0), "abdomen": (-155.0, -25.0), None: (-160.0, 155.0)}[region]
    obesity = float(rng.beta(1.6, 2.4))  # 0 thin, 1 very fat
    female = bool(rng.random() < 0.5)
    fat = 3.0 + 36.0 * obesity**1.5 + (5.0 if female else 0.0)
    belly = float(np.clip(rng.normal(38 * obesity - 4, 8), -8, 45))
    build = rng.normal(1.0, 0.035) - (0.04 if female else 0.0)
    scale = (build * rng.normal(1.0, 0.02), build * rng.normal(0.99, 0.03), build * rng.normal(1.0, 0.04))
    half_width = scale[0] * (165 + 1.25 * fat + 0.5 * max(belly, 0.0))
    spacing = float(np.clip(2 * (half_width + rng.uniform(8, 45)) / 512, 0.65, 0.92))
    shift = (float(rng.normal(0, 5)), float(rng.uniform(-34, -18)))
    return Patient(
        spacing=spacing,
        centre=float(rng.uniform(low, high)),
        frame=draw_frame(rng, scale, shift),
        fat=fat,
        belly=belly,
        muscle=float(np.clip(rng.normal(0.95 if female else 1.08, 0.12), 0.7, 1.4)),
        streaks=float(np.clip(rng.normal(0.45 * obesity + 0.3, 0.15), 0.05, 1.0)),
        female=female,
        density=_draw_density(rng),
        lung=(float(rng.uniform(-872, -825)), float(rng.uniform(0.3, 0.75))),
        bone=(float(rng.uniform(560, 900)), float(rng.uniform(120, 260))),
        calcified=bool(rng.random() < 0.4),
        organs=_draw_organs(rng),
        rib_shift=float(rng.uniform(0, 26)),
        table=draw_table(rng),
        fields=_draw_fields(rng),
    )


def _draw_density(rng: np.random.Generator) -> dict[str, float]:
    phase = str(rng.choice(["none", "arterial", "portal", "late"], p=[0.28, 0.18, 0.42, 0.12]))
    density = {tissue: float(rng.uniform(low, high)) for tissue, (low, high) in PHASES[phase].items()}
    # in the arterial phase, contrast agent reaches the right heart and the pulmonary arteries before the aorta
    density["right_heart"] = density["aorta"] + float(rng.uniform(-20, 60)) * (phase == "arterial")
    density["fat"] = float(rng.uniform(-112, -98))
    return density


def _draw_organs(rng: np.random.Generator) -> dict[str, Ellipsoid]:
    organs = {}
    for name, (centre, radii, turn, tilt) in ORGANS.items():
        loose = 0.5 if name == "heart" else 1.0
        size = rng.normal(1.0, 0.07)
        organs[name] = Ellipsoid(
            centre=triple(c + loose * rng.normal(0, s) for c, s in zip(centre, (4, 4, 9), strict=True)),
            radii=triple(r * np.clip(size * rng.normal(1, 0.05), 0.8, 1.22) for r in radii),
            axes=rotation(turn + rng.normal(0, 0.12), tilt + rng.normal(0, 0.08)),
        )
    return organs


def _draw_fields(rng: np.random.Generator) -> dict[str, Waves]:
    """Draw the fields: contours (a, b, c), strands in fat and streaks in muscle, cloudy and grainy texture."""
    return {
        "a": draw_waves(rng, 28, 90),
        "b": draw_waves(rng, 28, 90),
        "c": draw_waves(rng, 18, 50),
        "strand": draw_waves(rng, 9, 40, count=128, stretch=(1.6, 0.8, 2.0)),
        "streak": draw_waves(rng, 5, 22, count=128, stretch=(1.0, 1.0, 4.0)),
        "cloud": draw_waves(rng, 6, 24, count=160),
        "grain": draw_waves(rng, 2.2, 7, count=192),
    }
