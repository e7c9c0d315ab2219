"""The downstream protocols, a file each. SHIPPED: as in `methods`."""

SHIPPED = frozenset(
    """
    attentive knn linear linear_dino linear_dinov2 linear_mae logistic lowshot retrieval spectrum
    """.split()  # noqa: SIM905
)
