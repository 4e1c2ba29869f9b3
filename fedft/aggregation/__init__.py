"""How the institutions' updates become the next adapter: one algorithm per file, named as in its paper."""
