"""Who is calling and what they may do.

`tokens` and `access` are pure, so that the API and every relay worker decide by the same code, each on its own copy of the
tokens. `issuing` keeps the tokens themselves; `login` hands one to a command line that a person approved in a browser.
"""
