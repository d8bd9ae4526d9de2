"""The weights of the mask model that ships with the renderer; NOTICE names their origin and license."""

from pathlib import Path

U2NETP = Path(__file__).with_name("u2netp.onnx")
