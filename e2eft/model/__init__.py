"""The one-step estimator: RGB in, decoded image out. The only door to diffusers."""
