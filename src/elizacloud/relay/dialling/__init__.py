"""Connections to upstreams.

dial.py          how one is made, in each mode of the tailnet; redial.py: begun again when nothing answers
shared_dials.py  how many at a time, and what becomes of those who wait
pool.py          those of one upstream that wait to be used again
"""
