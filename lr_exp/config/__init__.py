"""What users may write: typed settings, Hydra composition, options and help."""
