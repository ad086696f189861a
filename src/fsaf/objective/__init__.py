"""``RawOutputs`` and ``Boxes`` come in; ``LossTerms``, the loss and its parts, go out.

Read ``assign.py`` (which location may learn which box), ``losses.py``, ``select.py`` (which level
each box chooses), ``anchor_free.py``, ``anchor_based.py``, then ``objective.py``, which sums both
branches. ``reach.py`` finds the levels that can learn a box at all.
"""
