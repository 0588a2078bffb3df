"""What there is to choose from, told by the YAML files themselves. Imports no torch."""
