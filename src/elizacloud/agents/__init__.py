"""The life of an agent: create -> key -> instance -> join -> ready, and back to nothing.

`operations` and `containers` are what the API calls: they only write down what is wanted. `drive` walks each agent through
the table in states.py, one step of `steps` at a time. `reconcile` compares the store, the runtime and Headscale now and
then, and repairs. `lifecycle` puts them together.
"""
