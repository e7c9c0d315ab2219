"""The downstream protocols, a file each. SHIPPED: as in `methods`."""

SHIPPED = frozenset({"knn", "linear", "logistic", "lowshot", "retrieval", "spectrum"})
