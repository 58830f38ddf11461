"""What was made of a function's guards, for reading.

``explain.py`` gathers it, ``costs.py`` says what each guard costs, ``html/`` writes it as one page.
"""
