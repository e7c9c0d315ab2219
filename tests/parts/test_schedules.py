import pytest

from selfsup.parts.schedules import layer_decay, ramp


def test_a_ramp_arrives_and_stays() -> None:
    found = [ramp(t, 0.04, 0.07, 0.3) for t in (0.0, 0.1, 0.2, 0.3, 0.9)]
    assert found == pytest.approx([0.04, 0.05, 0.06, 0.07, 0.07])
    assert ramp(0.0, 0.04, 0.07, 0.0) == 0.07


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("trunk.pos_embed", 4),
        ("trunk.cls_token", 4),
        ("trunk.patch_embed.proj.weight", 4),
        ("trunk.blocks.0.attn.qkv.weight", 3),
        ("trunk.blocks.2.norm1.bias", 1),
        ("trunk.norm.weight", 0),
    ],
)
def test_the_rate_decays_by_the_blocks_above(name: str, blocks: int) -> None:
    assert layer_decay(f"encoders.image.{name}", 3, 0.9) == pytest.approx(0.9**blocks)
    assert layer_decay("heads.0.2.weight", 3, 0.9) == 1.0
