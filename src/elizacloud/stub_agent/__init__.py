"""A faithful stand-in for the Milady agent: the demo's agent and every test's. `python -m elizacloud.stub_agent`.

No published package starts the real agent, so this one reproduces its contract with the outside: health and readiness,
the token, Host and Origin gates, connectors, SSE chat, `/ws`, octet-stream transfers. Beside that, `/api/echo/**` and
`/api/stub/*` show what arrived and make it fail on demand. It stands in one file a concern:

    config     what the environment says            gates      who may pass, as pure functions
    http       HTTP/1.1 connections on httptools     messages   a request as it came, and its answer
    agent      what it remembers, and how it is      routes     path -> handler
    streams    bodies that flow: chat, files, echo   websocket  `/ws`
    server     listen, live, end

Every create waits for it, so it imports the standard library, httptools and uvloop only: 0.1 s to the first answer
(aiohttp alone takes 0.44 s to import).
"""
