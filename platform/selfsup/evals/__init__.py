"""The downstream protocols, a file each. SHIPPED: as in `methods`."""

SHIPPED = frozenset({"attentive", "knn", "linear", "logistic", "lowshot", "retrieval", "spectrum"})
