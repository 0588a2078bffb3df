"""Claims of the paper and of our pages, judged on runs; and what a sweep can detect."""
