"""Encoders as graphs that run without selfsup: ONNX, and programs of torch.export.

A graph takes samples of the encoder's size, floats in [0, 1], in batches of any size; mean and deviation are in it.
"""

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from selfsup.pretrained import PretrainedEncoder

BATCH = 3  # samples that a graph is traced with; a batch of one would be taken for the only size


class SizedEncoder(nn.Module):
    """A copy of an encoder, for samples that have its size already."""

    def __init__(self, pretrained: PretrainedEncoder) -> None:
        super().__init__()
        self.pretrained = copy.deepcopy(pretrained)
        for weight in self.pretrained.parameters():  # torch.export.save takes none in channels-last order
            weight.data = weight.data.clone(memory_format=torch.contiguous_format)

    def forward(self, samples: Tensor) -> Tensor:
        """(B, C, *S), floats in [0, 1] -> (B, D)"""
        return self.pretrained.encoder.pooled(self.pretrained.view_of(samples.movedim(1, -1)))


def example(pretrained: PretrainedEncoder) -> Tensor:
    """-> (B, C, *S), the same random samples each time"""
    shape = BATCH, pretrained.stats.channels, *pretrained.view.lengths
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def program(pretrained: PretrainedEncoder) -> torch.export.ExportedProgram:
    """Return the traced graph of an encoder, whose input is called `samples`."""
    batch = torch.export.Dim("batch")
    with torch.no_grad():
        return torch.export.export(
            SizedEncoder(pretrained).eval(), (example(pretrained),), dynamic_shapes={"samples": {0: batch}}
        )


def write_program(pretrained: PretrainedEncoder, path: Path) -> Tensor:
    """Write a .pt2 file; return the features (B, D) of `example` by what was read back."""
    with path.open("wb") as file:
        torch.export.save(program(pretrained), file)
    with path.open("rb") as file, torch.no_grad():
        features: Tensor = torch.export.load(file).module()(example(pretrained))
    return features


def write_onnx(pretrained: PretrainedEncoder, path: Path) -> Tensor:
    """Write an .onnx file; return the features (B, D) of `example` by onnxruntime."""
    import onnxruntime

    traced, outputs = program(pretrained), ["features"]
    graph = torch.onnx.export(traced, dynamo=True, verbose=False, input_names=["samples"], output_names=outputs)
    assert graph is not None
    graph.save(path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (features,) = session.run(None, {"samples": example(pretrained).numpy()})
    return torch.from_numpy(features)
