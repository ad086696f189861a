"""``fsaf check``: ``Records`` of every split come in; faults, shape plans and clean annotations go out.

Read ``survey.py`` (the whole), ``annotations.py``, ``images.py`` and ``doubles.py`` (find the faults),
``reach.py`` (boxes that no location can learn), ``plan.py`` (batch shapes), ``fix.py`` and ``moves.py``
(write clean annotations) and ``lists.py`` (lists of a split), then ``text.py`` and ``verdict.py`` (print
all of it).
"""
