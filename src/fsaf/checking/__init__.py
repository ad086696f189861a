"""``fsaf check``: ``Records`` of every split come in; faults, shape plans and clean annotations go out.

Read ``survey.py`` (finds the faults), ``reach.py`` (boxes that no location can learn), ``plan.py`` (batch
shapes), ``fix.py`` (writes clean annotations), then ``text.py`` (prints all of it).
"""
