"""`report.html`: a self-contained page of a run or a sweep, readable offline."""

from lr_exp.report.page.write import page_of, write_run_page

__all__ = ["page_of", "write_run_page"]
