"""A report as one page: ``model.py`` gathers what it says, ``page.py`` writes it, the other files are what a browser
reads."""
