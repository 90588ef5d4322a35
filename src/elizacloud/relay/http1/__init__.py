"""HTTP/1.1 as bytes: one head, one body, where a message ends. Pure: no sockets, no clocks.

The head is read by llhttp (httptools), one head at a time in a parser of its own, so that no state of one message can
leak into the next. What it lets through and we do not is refused in head.py.
"""
