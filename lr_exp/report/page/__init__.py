"""`report.html`: a self-contained page of a run or a sweep, readable offline."""

from lr_exp.report.page.write import folder_page, write_run_page

__all__ = ["folder_page", "write_run_page"]
