"""`python -m elizacloud` is the `elizacloud` command."""

from elizacloud.cli import main

main()
