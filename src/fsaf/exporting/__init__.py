"""A detector comes in; an ONNX file that agrees with it goes out.

Read ``export.py``, then ``onnx.py`` (writes the file) and ``check.py`` (compares it with PyTorch).
"""
