"""The tables of a report, one module each; `report/layout.py` lists them for each sweep."""
