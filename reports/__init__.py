"""What is read off the store: tables of results, in LaTeX, Markdown, CSV, JSON and for the terminal."""
