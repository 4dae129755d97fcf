"""End-to-end fine-tuning of image diffusion models into depth and normal estimators, on a
cluster."""

__version__ = "0.1.0"
