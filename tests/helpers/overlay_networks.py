"""The networks of the bundle's overlays, at small widths."""

import json

import torch
from monai.bundle import ConfigParser
from tiny_runs import TINY

from ct_cncl.pipeline.workflow.definition import NETWORK_KEYS
from ct_cncl.pipeline.workflow.overlays import variant
from ct_cncl.pipeline.workflow.run import overlay_files
from ct_cncl.pipeline.workflow.run_values import value_at

ALL = overlay_files()
VARIANTS = sorted(name for name, path in ALL.items() if path.parent.name != "encoders")  # encoders have their own tests
SMALL = {
    "UNet": {"width": 4, "depth": 2},
    "DnCNN": {"width": 4, "depth": 3},
    "SRDenseNet": {"width": 8, "layers": 4, "blocks": 2},
    "BlockUNet": {"width": 4, "encoder_blocks": [1, 1], "decoder_blocks": [1, 1]},
    "BlockDecoder": {"width": 4, "decoder_blocks": [1, 1]},
    "Restormer": {"width": 4, "blocks": [1, 1], "heads": [1, 2], "refinement_blocks": 1},
    "REDCNN": {"width": 4},
}
"""Arguments that make each class small, by its name."""
RUN = {key: value for key, value in TINY.items() if "predictor" not in key and "network_def" not in key}
"""Overrides that make training take a second, except those of the networks."""


def merged(*variants):
    return variant("+".join(variants)).config()


def small(*variants):
    """Overrides that make the networks of these overlays small."""
    config, overrides = merged(*variants), {}
    for key in ("network_def", "network_def#content", "network_def#noise"):
        if (node := value_at(config, key)) is not None:
            kind = node["_target_"].rsplit(".", 1)[1]
            overrides |= {f"{key}#{name}": value for name, value in SMALL.get(kind, {}).items()}
    return overrides


def definition(*variants, **overrides):
    parser = ConfigParser()
    parser.read_config(merged(*variants))
    parser.update(small(*variants) | overrides)
    return json.dumps([parser.get(key) for key in NETWORK_KEYS]), parser


NETWORKS = list({definition(name)[0]: name for name in reversed(VARIANTS)}.values())[::-1]
"""One overlay for each network, because some overlays change only the training."""


def network(*variants, perturbed=True, seed=0):
    """The overlays' small network, perturbed so that no fault hides behind a weight that starts at zero."""
    torch.manual_seed(seed)
    built = definition(*variants)[1].get_parsed_content("network_def")
    if perturbed:
        for parameter in built.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return built
