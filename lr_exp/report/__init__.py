"""What a person looks at: the table at the end of a run, and the report of many runs."""
