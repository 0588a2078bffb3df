"""The tables of a report, one module each; `tables/layout.py` selects them for each sweep."""
