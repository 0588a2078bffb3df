"""What users may write: typed settings, Hydra composition, help and the listing of options."""
