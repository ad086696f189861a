"""ONNX files: writing, checking, running."""
