"""The HTTP API: one file a noun. It reads a request, calls an operation, and says what came of it; it decides nothing.

`app` puts it together, `schemas` is what goes over the wire (camelCase), `problem` turns every error into problem+json.
"""
