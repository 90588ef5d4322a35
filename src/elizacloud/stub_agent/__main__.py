"""`python -m elizacloud.stub_agent` runs the stub agent with what the environment says."""

from elizacloud.stub_agent.server import main

main()
