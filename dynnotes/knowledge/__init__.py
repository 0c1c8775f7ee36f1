"""The literature as a graph: BibTeX in, papers, facets and relations out. Needs no torch."""
