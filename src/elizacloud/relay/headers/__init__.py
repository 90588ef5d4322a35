"""Which header lines pass in each direction, and in which words. Pure: nothing in here knows a connection.

hygiene.py    what is taken away and put on, on both ways; caching.py: so that nobody's answer is kept for others
framed.py     an answer's first lines: its status, where it ends, and what becomes of the connection
forwarded.py  who the client is when proxies stand in front; trace.py: request ids and W3C trace context
cors.py       which origins may read the answer; redirect.py: an agent's Location, in the caller's terms
"""
