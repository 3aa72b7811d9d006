"""Packaging of ct-cncl: the top-level folders become subpackages of the namespace ``ct_cncl``."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
BUNDLE = "bundles/ct_cncl"


def subpackages(folder: str) -> list[str]:
    """Import names of ``folder`` and everything below it: pipeline -> ct_cncl.pipeline, ct_cncl.pipeline.networks ..."""
    return [f"ct_cncl.{folder}"] + [f"ct_cncl.{folder}.{name}" for name in find_packages(folder)]


def version() -> str:
    """Version of the package, from the only place that states it: ``__version__`` in transforms/__init__.py."""
    for line in (ROOT / "transforms" / "__init__.py").read_text(encoding="utf-8").splitlines():
        if line.startswith("__version__"):
            return line.split('"')[1]
    raise RuntimeError("transforms/__init__.py does not define __version__")


EXTRAS = {
    # Compressed DICOM; permissive licences only, so without pylibjpeg-libjpeg, which is GPL.
    "dicom": ["pylibjpeg>=2.0", "pylibjpeg-openjpeg>=2.3", "python-gdcm>=3.0.24"],
    "deidentify": ["dicom-anonymizer>=2.1"],
    "tiff": ["tifffile>=2023.7"],
    "huggingface": ["huggingface_hub>=0.30"],
    # The second engine of `denoise`; `pack` writes its file with it.
    "onnx": ["onnx>=1.16", "onnxruntime>=1.18"],
    "report": ["matplotlib>=3.8"],
    # The node depends on internals of pynetdicom, see pipeline/node/incoming.py.
    "node": ["pynetdicom>=3.0.4,<3.1", "starlette>=0.40", "uvicorn>=0.30"],
    "verify": ["jsonschema>=4.17"],
    "test": [
        "cryptography>=42",
        "SimpleITK>=2.3",
        "dcm2niix>=1.0.20220715",
        "hypothesis>=6.100",
        "jsonschema>=4.17",
        "matplotlib>=3.8",
        "onnx>=1.16",
        "onnxruntime>=1.18",
        "pytest>=8",
        "pytest-cov>=5",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.5",
        "scikit-image>=0.22",
        "selenium>=4.20",
        "torchmetrics>=1.4",
    ],
    "lint": ["mypy>=1.10", "pre-commit>=3.6", "ruff>=0.6", "typos>=1.24"],
    # The site needs plugins, which mkdocs 2 does not have.
    "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.5,<10", "mkdocstrings-python>=1.11", "mkdocstrings>=0.26"],
    "build": ["build>=1.2", "setuptools>=70", "wheel>=0.43"],
}
_DEV = ("test", "lint", "build", "dicom", "deidentify", "tiff", "report", "verify", "node", "docs")
EXTRAS["dev"] = sorted({requirement for group in _DEV for requirement in EXTRAS[group]})

setup(
    name="ct-cncl",
    version=version(),
    description="Low-dose CT denoising by content-noise complementary learning, as a MONAI bundle",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    package_dir={
        "ct_cncl.pipeline": "pipeline",
        "ct_cncl.transforms": "transforms",
        "ct_cncl.bundle": BUNDLE,
    },
    packages=[*subpackages("pipeline"), *subpackages("transforms"), "ct_cncl.bundle"],
    package_data={
        "ct_cncl.pipeline": ["py.typed"],
        "ct_cncl.transforms": ["py.typed"],
        "ct_cncl.pipeline.node": ["templates/*"],
        "ct_cncl.pipeline.sharing": ["metadata_schema.json"],
        "ct_cncl.pipeline.report": ["templates/*"],
        "ct_cncl.bundle": ["LICENSE", "configs/*", "configs/recipes/*", "configs/research/*/*", "docs/*", "models/*"],
    },
    install_requires=[
        "torch>=2.4",
        "monai[fire,ignite,nibabel,pyyaml,tensorboard,tqdm]>=1.6,<1.7",
        "jinja2>=3.1",
        "numpy>=1.26",
        "numba>=0.60",
        "pydicom>=3.0",
        "scipy>=1.11",
        "typer>=0.12",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["ct-cncl=ct_cncl.pipeline.cli:main"]},
)
