"""What a run is made of, each done once: pre-training, features, evaluations, reconstructions."""
