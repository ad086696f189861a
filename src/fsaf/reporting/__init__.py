"""A run folder, or a checked data set, comes in; an HTML page, or a model card, goes out.

Read ``report.py`` first. ``findings.py`` and ``worst.py`` say what the evaluation found,
``compare.py`` sets runs side by side, ``data_page.py`` shows a data set and its faults,
``charts.py`` draws curves, ``page.py`` fills ``templates/``, and ``card.py`` writes the model card.
"""
