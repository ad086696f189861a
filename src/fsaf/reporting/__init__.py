"""A run folder comes in; an HTML page, or a model card, goes out.

Read ``report.py`` first. ``findings.py`` and ``worst.py`` say what the evaluation found,
``compare.py`` sets runs side by side, ``charts.py`` draws curves, ``page.py`` fills ``templates/``,
and ``card.py`` writes the model card.
"""
