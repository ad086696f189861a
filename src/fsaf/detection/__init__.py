"""Pictures come in; detections in pixels of the original (``Result``) go out.

Read ``detector.py`` first. ``picture.py`` and ``views.py`` prepare the images, ``postprocess.py`` and
``nms.py`` turn ``RawOutputs`` into ``Detections``, ``result.py`` holds them, ``draw.py`` draws them, and
``onnx.py`` runs an exported file instead of a network.
"""
