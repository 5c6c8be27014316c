"""Update rules as optimisers: the seam to `higher`, optimisers of torch."""
