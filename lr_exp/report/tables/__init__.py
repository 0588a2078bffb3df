"""The layouts of the report's tables, one module each; `table.py` has what they share."""
