"""How the control plane bears ten thousand agents: `python -m bench.scale`. The outside is made of the fakes of the tests."""
