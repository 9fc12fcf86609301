"""The labelling page: `desk` says what is shown to whom, `store` keeps every verdict, `server` answers, `static/` is
shown.

Nothing a model wrote is ever HTML here: texts travel as JSON and are put into the page as text.
"""
