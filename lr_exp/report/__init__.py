"""Tables, figures and pages from the folders of finished runs."""

from lr_exp.report import paired as paired
