"""The gate theatre and the host that starts widgets on static pages; each JavaScript file exists once, here."""
