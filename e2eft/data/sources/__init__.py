"""One module a dataset: list its frames, decode one frame into a Sample."""
