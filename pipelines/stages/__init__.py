"""The stages of a run, each done once: pre-training, features, evaluations, reconstructions."""
