"""W&B pages for a project's runs: a workspace, and a report with the paper's tables."""
