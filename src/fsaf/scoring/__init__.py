"""A detector and a split come in; COCO's metrics and the predictions go out.

Read ``evaluate.py``, then ``metrics.py`` (COCO's figures) and ``analysis.py`` (which errors cost
what).
"""
