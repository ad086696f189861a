"""``RawOutputs`` and ``Boxes`` come in; ``LossTerms``, the loss and its parts, go out.

Read in this order: ``assign.py`` decides which location may learn which box, ``losses.py`` computes the
loss of each location, ``select.py`` selects the level on which each box learns. ``anchor_free.py`` joins
these three into the losses of FSAF's branch, ``anchor_based.py`` computes those of RetinaNet's, and
``objective.py`` adds up and divides both. ``reach.py`` finds the levels that can learn a box at all, for
``fsaf check``.
"""
