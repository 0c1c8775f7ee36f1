"""The names of the bibliography's fields, each written here once."""

FACETS = ("kind", "adapts", "unit", "decision", "training", "executes", "modality", "tasks")
MANY = ("aka", "also", "lists", *FACETS[1:])  # fields with several values, separated by `; `
OURS = ("method", "taxon", "leaf", "kind", "tldr", "headline", "status", *MANY)  # beside the relations, which are data
WORDS = ("taxon", "leaf", "kind")  # with MANY but aka: taken as written, no LaTeX
LINKS = ("url", "code")
TYPES = (
    "article", "book", "booklet", "conference", "dataset", "inbook", "incollection", "inproceedings", "manual",
    "mastersthesis", "misc", "online", "phdthesis", "proceedings", "report", "software", "techreport", "thesis",
    "unpublished",
)  # fmt: skip
VENUE = {  # the standard field that says where an entry of this type appeared
    "article": "journal", "inproceedings": "booktitle", "conference": "booktitle", "incollection": "booktitle",
    "inbook": "booktitle", "phdthesis": "school", "mastersthesis": "school", "thesis": "school",
    "techreport": "institution", "report": "institution", "misc": "howpublished", "online": "howpublished",
    "book": "publisher",
}  # fmt: skip
NEEDS_VENUE = ("article", "inproceedings", "conference", "incollection")
STANDARD = (  # what BibTeX, BibLaTeX, Zotero and JabRef write
    "title", "author", "year", "eprint", "archiveprefix", "doi", "journal", "booktitle", "school", "institution",
    "howpublished", "publisher", "address", "annote", "chapter", "edition", "editor", "month", "note", "number",
    "organization", "pages", "series", "type", "volume", "abstract", "isbn", "issn", "keywords", "language",
    "primaryclass", "eprinttype", "eprintclass", "shorttitle", "subtitle", "urldate", "date", "crossref",
)  # fmt: skip
REQUIRED = ("title", "author", "year", "method", "kind", "taxon", "tldr", "status")
REQUIRED_OF_DYNAMIC = ("adapts", "unit", "decision", "training", "executes", "modality")
STATIC_KINDS = ("background", "survey")  # they need not say what is dynamic
LINK = r"https?://[^\s<>\"{}\\^`]+"  # a web address
STATUS = r"checked|unconfirmed: *\S.*"
