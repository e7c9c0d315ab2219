"""What a plan says that it costs, against real modules and sums done by hand."""

from inspect import getmodule, getsource

import pytest
import torch
from torch import Tensor, nn

from selfsup import encoder, method
from selfsup.contract import BACKBONES
from selfsup.encoder import TokenEncoder
from selfsup.knob import Knobs
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts.tokens import Tokens
from selfsup.pipelines import cost as module
from selfsup.pipelines import objective
from selfsup.pipelines.cost import _remarks, cautions, cost
from selfsup.spec import Run, run_type
from selfsup.views import Crop, Views

INFO = TrainInfo(num_samples=64, num_classes=2, num_steps=1, steps_per_epoch=8)
P, H = 192, 5  # values of an 8x8 patch in color; hidden channels
VIT = {"name": "vit_tiny_patch16_224", "image_size": 32, "patch_size": 8, "width": 32, "depth": 1, "heads": 2}


def run(name: str, *, batch: int = 8, **sections: dict[str, object]) -> Run:
    told = {
        "method": name,
        "seed": 0,
        "data": {"train": "nowhere"},
        "backbone": VIT,
        "train": {"duration": {"steps": 1}, "batch": batch} | sections.pop("train", {}),
    }
    return run_type(name).model_validate(told | sections)


@pytest.mark.parametrize(
    "asked",
    [
        run("mae", hyper={"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}),
        run("simclr"),
        run("simclr", backbone={"name": "resnet18", "image_size": 32, "stem": "small"}),
    ],
    ids=["mae", "simclr", "simclr on a CNN"],
)
def test_parameters_are_those_of_the_real_module(asked: Run) -> None:
    trunk = encoder.build(asked.backbone)
    real = method.load(asked.method)(asked.hyper, {"image": trunk}, INFO)
    price = cost(asked, INFO)
    assert price.parameters == sum(weight.numel() for weight in real.parameters())
    assert price.encoder_parameters == sum(weight.numel() for weight in trunk.parameters())


class Product(Method):
    """One matrix product of every patch."""

    paper = "none"
    separable = True

    class Hyper(Knobs):
        pass

    @classmethod
    def views(cls, hyper: Knobs) -> Views:  # noqa: ARG003
        return Views((Crop(),))

    def __init__(self, hyper: Knobs, encoders: dict[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.backbone.requires_grad_(False)
        self.weight = nn.Parameter(torch.empty(P, H))

    def forward(self, batch: Batch) -> Out:
        [view] = batch.views
        assert isinstance(view.value, Tokens)
        hidden: Tensor = view.value.value @ self.weight
        return Out((hidden * hidden).sum())


@pytest.fixture
def product(monkeypatch: pytest.MonkeyPatch) -> None:
    for planner in (module, objective):
        monkeypatch.setattr(planner, "load", lambda _: Product)


@pytest.mark.usefixtures("product")
def test_a_product_of_matrices() -> None:
    """N = 16 patches an image. Forward: 2 N P H; backward, to the weight alone since images need no gradient: the same.

    Kept for the backward pass beside inputs and weights: the hidden values, B N H of 4 bytes, once.
    """
    price = cost(run("simclr", batch=8), INFO)
    assert price.flops == 2 * (2 * 16 * P * H)
    assert price.activation_bytes == 8 * 16 * H * 4


@pytest.mark.usefixtures("product")
@pytest.mark.parametrize(
    ("sections", "size"),
    [
        ({"resources": {"workers": 4}}, 2),
        ({"train": {"accumulate": 2}}, 4),
        ({"resources": {"workers": 2}, "train": {"accumulate": 4}}, 1),
    ],
)
def test_activations_are_those_of_a_worker_and_a_piece(sections: dict[str, dict[str, object]], size: int) -> None:
    price = cost(run("simclr", batch=8, **sections), INFO)
    assert price.activation_bytes == size * 16 * H * 4
    assert price.flops == 2 * (2 * 16 * P * H)  # of a sample, whoever sees it


@pytest.mark.usefixtures("product")
@pytest.mark.parametrize(("name", "moments"), [("adamw", 2), ("sgd", 1), ("lars", 1)])
def test_state_is_weights_gradients_and_moments(name: str, moments: int) -> None:
    """Gradients and moments of what is trained: here P x H, the encoder being frozen."""
    asked = run("simclr", optim={"name": name})
    frozen = sum(weight.numel() for weight in encoder.build(asked.backbone).parameters())
    assert cost(asked, INFO).state_bytes == 4 * (frozen + P * H * (1 + 1 + moments))


def test_pieces_cost_another_forward_pass_of_the_encoder_and_hold_the_activations_of_one() -> None:
    """The block and its attention count as below. Activations grow with the piece, beside what the whole keeps."""
    whole, four, eight = (cost(run("simclr", batch=16, train={"accumulate": pieces}), INFO) for pieces in (1, 4, 8))
    t, d = 16 + 1, 32
    assert four.flops - whole.flops == pytest.approx(2 * (2 * t * d * 12 * d + 2 * 2 * t * t * d), rel=0.02)
    saved = four.activation_bytes - eight.activation_bytes
    assert saved == pytest.approx((1 / 4 - 1 / 8) * whole.activation_bytes, rel=0.1)


def test_a_plan_tells_where_pieces_change_more_than_memory() -> None:
    """Batch normalization alone; MAE's and a ViT's encoders have none, and SimCLR's head sees the whole batch."""
    told = {"batch": 512, "train": {"accumulate": 8}}
    cnn = {"name": "resnet18", "image_size": 32}
    norms = "batch normalization in the encoder sees 8 pieces of 64 samples, one after the other"
    message = f"train.accumulate: {norms}; all else of simclr sees the whole batch of 512"
    assert list(cautions(run("simclr", backbone=cnn, **told), INFO)) == [message]
    assert list(cautions(run("simclr", backbone=cnn, batch=512), INFO)) == []
    assert list(cautions(run("simclr", **told), INFO)) == []
    assert list(cautions(run("mae", **told), INFO)) == []


def test_no_warning_tries_a_knobs_default_that_another_value_rules_out() -> None:
    """E-SSL's small crops are of 0.05 to 0.14 of an image; a minimum above 0.14 goes with a maximum of its own."""
    hyper = {"small": 16, "small_min": 0.2, "small_max": 1.0}
    assert list(cautions(run("essl", batch=1024, hyper=hyper), INFO)) == []


@pytest.mark.parametrize(("name", "hyper"), [("multimae", {"depth": False}), ("omnivore", {"kinds": ("depth",)})])
def test_what_decides_what_lies_beside_samples_is_not_idle(name: str, hyper: dict[str, object]) -> None:
    assert list(cautions(run(name, batch=1024, hyper=hyper), INFO)) == []


def test_no_objective_costs_more_the_longer_it_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    """All whose module names the length of training are tried: a plan keeps the cost of a step for other lengths."""
    asked: list[TrainInfo] = []
    monkeypatch.setattr(module, "_recalled", lambda _, __, info, answer: asked.append(info) or answer())
    sources = {name: getsource(getmodule(method.load(name))) for name in method.names()}  # type: ignore[arg-type]
    for name in [name for name, text in sources.items() if "num_steps" in text or "steps_per_epoch" in text]:
        kind = method.load(name)
        backbone = BACKBONES[kind.backbones[0]].model_dump(exclude_unset=True)
        costs = [cost(run(name, backbone=backbone), INFO._replace(num_steps=n, num_samples=4096)) for n in (16, 4000)]
        assert costs[0] == costs[1], name
    assert len(asked) >= 2 * 8
    assert {(info.num_steps, info.steps_per_epoch) for info in asked} == {(0, 0)}


def test_a_transformer_counts_its_products() -> None:
    """SimCLR's forward pass by hand; a backward pass takes twice that, less what leads to images alone.

    T = N + 1 tokens of D channels: 2 N P D for the patches, 2 T D (3 D + D + 4 D + 4 D) for the linear layers of the
    block and 2 (2 T T D) for its attention; the projector is D x D and D x 128. Two views; the similarities of the
    loss, fewer than a hundredth, are the tolerance.
    """
    batch, n, d = 8, 16, 32
    t = n + 1
    patches, block, attention = 2 * n * P * d, 2 * t * d * 12 * d, 2 * 2 * t * t * d
    heads = 2 * d * d + 2 * d * 128
    by_hand = 2 * (2 * patches + 3 * (block + attention + heads))
    assert cost(run("simclr", batch=batch), INFO).flops == pytest.approx(by_hand, rel=0.02)


def test_a_higher_mask_ratio_costs_less() -> None:
    decoder = {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}
    few, many = (cost(run("mae", hyper=decoder | {"mask_ratio": ratio}), INFO) for ratio in (0.75, 0.25))
    assert few.flops < many.flops
    assert few.activation_bytes < many.activation_bytes


def test_a_plan_tells_what_is_known_of_a_recipe_and_what_nobody_has_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(method.load("simclr"), "least_batch", 16)
    known = {"source": "table 7", "linear": 69.3, "protocol": "frozen", "knn": 55.0, "tolerance": 0.5}
    told = run("simclr", published=known)
    assert list(_remarks(told, INFO)) == [
        ("beware", "simclr with batches of 8: its paper shows none below 16"),
        (
            "known",
            "kNN 55 ± 0.5, linear 69.3 ± 0.5 on features embedded once (table 7); of the recipe as it stands in its "
            "file",
        ),
    ]
    [*_, (_, remark)] = _remarks(run("simclr", published=known | {"protocol": "augmented"}), INFO)
    assert remark == (
        "kNN 55 ± 0.5, linear 69.3 ± 0.5 on augmented views (table 7); of the recipe as it stands in its file; "
        "not to be set beside eval/linear, which is trained on features embedded once"
    )
    assert list(_remarks(run("simclr", batch=16), INFO)) == []


@pytest.mark.parametrize("name", ["deepcluster", "sela"])
def test_a_plan_tells_that_nothing_is_learned_before_the_first_labels(name: str) -> None:
    asked = run(name, hyper={"clusters": 4} | ({"local_crops": 0} if name == "deepcluster" else {}))
    message = f"{name} learns nothing in 8 steps: none of its weights moves in the first 8; train for longer"
    assert list(_remarks(asked, INFO._replace(num_steps=8))) == [("beware", message)]
    assert list(_remarks(asked, INFO._replace(num_steps=9))) == []


@pytest.mark.parametrize("name", method.names())
def test_an_objective_whose_weights_wait_declares_it(name: str) -> None:
    kind = method.load(name)
    assert kind.freezes == ("frozen_until=" in getsource(kind))


def test_recomputed_blocks_cost_the_memory_of_their_inputs() -> None:
    """Two blocks more are two inputs more: 4 bytes of 32 channels of 17 tokens of two views of 8 images."""
    prices = [
        cost(run("simclr", backbone=VIT | {"depth": depth}, train={"checkpoint_activations": again}), INFO)
        for again in (True, False)
        for depth in (2, 4)
    ]
    assert prices[1].activation_bytes - prices[0].activation_bytes == 2 * 2 * 8 * 17 * 32 * 4
    assert prices[3].activation_bytes - prices[2].activation_bytes > 10 * 2 * 2 * 8 * 17 * 32 * 4
    assert prices[1].flops == prices[3].flops
