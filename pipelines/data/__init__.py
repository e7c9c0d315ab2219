"""WebDataset shards: packing, indexing, storage, sample order, and streams to training workers."""
