#!/usr/bin/env bash
# Under bf16 autocast torchvision's detectors round their boxes: beyond pixel 512 every edge is a multiple of 4.
#
# Versions: torchvision 0.29.2, torch 2.15.0, numpy 2.4.6, Python 3.11.
# Expected: autocast lowers the precision of convolutions and matrix products; coordinates of anchors and proposals stay fp32, as
#   a head's small corrections of them do not.
# Happens: BoxCoder.decode casts the boxes to the type of the corrections, which autocast makes bf16, of 8 significant bits. A
#   correction of zero moves a box by up to 3 pixels: (508.9, 100.3, 759.2, 301.7) becomes (506, 101, 760, 304). Proposals,
#   the regions that RoIAlign samples and final boxes are all of that grid, in the middle of a 1024-pixel image 4 pixels wide.
# Why it matters: ViTDet-style fine-tuning at 1024 pixels in bf16 is how backbones are compared. Box AP at high overlaps, and AP of
#   small objects right and below in the image, lose what no encoder can win back; at 224 pixels (steps of 1) nothing is seen.
#   Switch autocast off around proposals and heads, and keep it for the backbone.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check torch==2.15.0 torchvision==0.29.2 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import torch
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_fpn
from torchvision.models.detection._utils import BoxCoder

coder, proposal = BoxCoder((10.0, 10.0, 5.0, 5.0)), torch.tensor([[508.9, 100.3, 759.2, 301.7]])
head = torch.nn.Linear(8, 4)
torch.nn.init.zeros_(head.weight)
torch.nn.init.zeros_(head.bias)
exact = coder.decode(head(torch.zeros(1, 8)), [proposal])[0, 0]
with torch.autocast("cpu", torch.bfloat16):
    mixed = coder.decode(head(torch.zeros(1, 8)), [proposal])[0, 0]
print("a box corrected by nothing, fp32:", [round(edge, 1) for edge in exact.tolist()], "bf16 autocast:", mixed.tolist())
assert torch.allclose(exact, proposal[0]), "the behaviour has changed"
assert mixed.tolist() == [506.0, 101.0, 760.0, 304.0], "the behaviour has changed"

torch.manual_seed(0)
size = {"min_size": 1024, "max_size": 1024, "rpn_post_nms_top_n_test": 50, "box_score_thresh": 0.0}
model = fasterrcnn_mobilenet_v3_large_fpn(weights=None, weights_backbone=None, **size).eval()
seen = {}
model.roi_heads.register_forward_pre_hook(lambda _, given: seen.update(proposals=given[1][0]))
with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
    model([torch.rand(3, 1024, 1024)])
edges = seen["proposals"].float().flatten()
far = edges[edges >= 512]
print("proposals of a whole detector:", seen["proposals"].dtype, f"{len(far)} edges beyond 512, off the grid of 4:", int((far % 4 != 0).sum()))
assert seen["proposals"].dtype == torch.bfloat16 and len(far) > 20 and bool((far % 4 == 0).all()), "the behaviour has changed"
PY
env/bin/python see.py
