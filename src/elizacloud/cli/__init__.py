"""The `elizacloud` command: one file a noun. Commands speak the public API through client/, and app/ for up, serve, relay.

    root       the command tree                      command    errors -> one sentence and an exit code
    context    which server, which token             output     tables, lines, JSON
    progress   an agent coming up, as it happens     checks/    what `doctor` looks at

What is slow to import is imported inside the commands: `elizacloud --help` must not wait for a web framework.
"""


def main() -> None:
    from elizacloud.cli.root import app

    app(prog_name="elizacloud")
