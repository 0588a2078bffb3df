"""The tables of a report, one module each; `table.py` has what they share."""
