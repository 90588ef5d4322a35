"""Who is calling and what they may do: tokens are parsed and hashed here, rules are pure. No I/O, so the relay and
the API decide by the same code, each on its own copy of the tokens."""
