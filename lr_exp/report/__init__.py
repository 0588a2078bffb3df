"""Tables, figures and pages from the folders of finished runs."""
