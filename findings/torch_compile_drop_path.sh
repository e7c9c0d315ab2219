#!/usr/bin/env bash
# Compiled block by block, a timm ViT with stochastic depth runs all but 8 of its blocks uncompiled.
#
# Versions: torch 2.15.0, timm 1.0.31, Python 3.11.
# Expected: equal blocks share a graph, whose probability of leaving a sample out is an input of it, or a constant of a few graphs;
#   which is why one compiles block by block: a graph takes seconds, and serves all 24 blocks of a ViT-L.
# Happens: timm gives each block its own rate (0, 0.004, ... 0.1), and Dynamo takes the rate for a constant: a graph for each block.
#   After 8 graphs of one `forward` it gives up on the function, for all blocks to come: 16 of 24 run eagerly, for the whole training.
#   One warning about a recompile limit is all; loss and gradients are right. Without stochastic depth one graph serves all.
# Why it matters: DINOv2's, iBOT's and fine-tuning's recipes have drop-path, linear evaluation and MAE's pre-training none: two thirds
#   of the speed-up of compiling go missing in just some arms of a sweep. Raise torch._dynamo.config.recompile_limit above the depth.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check torch==2.15.0 torchvision==0.29.2 timm==1.0.31 2>/dev/null
cat > see.py <<'PY'
import timm
import torch


def compiled(rate: float, limit: int) -> tuple[int, int]:
    """-> graphs of a ViT of 24 blocks compiled block by block, and blocks that run one in a later step"""
    torch._dynamo.reset()
    torch._dynamo.config.recompile_limit = limit
    graphs, calls = [], []

    def backend(graph, _):
        graphs.append(graph)
        return lambda *given: calls.append(1) or graph(*given)

    shape = {"img_size": 32, "embed_dim": 32, "num_heads": 2, "depth": 24, "num_classes": 0}
    model = timm.create_model("vit_base_patch16_224", **shape, drop_path_rate=rate).train()
    for block in model.blocks:
        block.compile(backend=backend)
    images = torch.rand(2, 3, 32, 32)
    model(images)
    calls.clear()
    model(images)
    return len(graphs), len(calls)


for rate, limit in ((0.0, 8), (0.1, 8), (0.1, 32)):
    graphs, blocks = compiled(rate, limit)
    print(f"drop-path {rate}, recompile_limit {limit}: {graphs} graphs, {blocks} of 24 blocks compiled")
    assert (graphs, blocks) == {(0.0, 8): (1, 24), (0.1, 8): (8, 8), (0.1, 32): (24, 24)}[rate, limit], "the behaviour has changed"
PY
env/bin/python see.py
