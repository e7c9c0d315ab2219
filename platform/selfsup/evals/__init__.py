"""The downstream protocols, a file each. SHIPPED: as in `methods`."""

SHIPPED = frozenset(
    """
    attention attentive attentive_vjepa caption_retrieval correspondence corruptions cross_retrieval depth
    depth_decoded depth_finetune detection detection_finetune discovery finetune invariance knn linear linear_dino
    linear_dinov2 linear_mae logistic lowshot retrieval segment_decoded segment_dinov3 segment_finetune segment_knn
    segment_linear semi spectrum zero_shot
    """.split()  # noqa: SIM905
)
