"""Who uses an agent, and what becomes of one that nobody uses: paused, then stopped, at last without a node.

`policy` and `schedule` are what owners may say, `decide` is the table that says what is due, all three pure; `uses` knows
when an agent was last used, `waking` who may have one started again. `steps/resting.py` acts.
"""
