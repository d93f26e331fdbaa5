"""The back of the house: queue, workers, model cache, artifacts, shares, HTTP. Knows no Gradio and no method."""

__version__ = "0.1.0"
