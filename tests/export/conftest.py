"""A small model with weights that matter everywhere, and the bundle that an export makes of it."""

from pathlib import Path

import pytest
import torch
from galip_export import export_bundle
from galip_export.calibration import generator_samples
from studies.random_weights import set_contrast
from tiny import random_model, small_config

from galip.checkpoint import save_galip
from galip.model import AffineMlp, Galip
from galip.presets import preset


@pytest.fixture(autouse=True, scope="session")
def trace_once(traced_graphs):
    """Exports take the graphs of a model that was traced before."""


@pytest.fixture(autouse=True)
def one_thread(request):
    """Models this small only wait for their threads."""
    threads = torch.get_num_threads()
    if not request.node.get_closest_marker("slow"):
        torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def small_model():
    """Makes a `tiny` model with a generator of one block of each kind, or as its arguments say."""

    def make(**generator) -> Galip:
        return random_model(small_config(**generator))

    return make


@pytest.fixture(scope="session")
def tiny_model():
    return random_model(preset("tiny"))


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("checkpoints") / "tiny.safetensors"
    save_galip(path, tiny_model)
    return path


@pytest.fixture(scope="session")
def tiny_export(tiny_checkpoint, tmp_path_factory):
    """The report of an export of `tiny_checkpoint`."""
    return export_bundle(tiny_checkpoint, tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def tame_model():
    """A tiny one whose pictures have the contrast of trained ones, and that amplifies rounding no more."""
    torch.manual_seed(0)
    model = Galip(preset("tiny")).eval()
    for network in model.generator.modules():
        if isinstance(network, AffineMlp):
            network[2].weight.data += (
                0.2 * torch.randn_like(network[2].weight) / network[2].in_features ** 0.5
            )
    set_contrast(model)
    return model


@pytest.fixture(scope="session")
def tame_checkpoint(tame_model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("checkpoints") / "tame.safetensors"
    save_galip(path, tame_model)
    return path


@pytest.fixture(scope="session")
def tame_generator(tame_model, traced_graphs):
    """Its graph in fp32."""
    return traced_graphs.generator(tame_model)


@pytest.fixture(scope="session")
def tame_samples(tame_model):
    """What calibration runs it with."""
    return generator_samples(tame_model)
