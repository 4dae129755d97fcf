"""The training stage: Ray Train places the workers, DeepSpeed partitions, the artifact holds the
result."""
