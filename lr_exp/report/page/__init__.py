"""`report.html`: one file that shows a run or a sweep in any browser, without a network."""

from lr_exp.report.page.write import page_of, write_run_page

__all__ = ["page_of", "write_run_page"]
