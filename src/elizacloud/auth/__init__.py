"""Who is calling and what they may do.

Pure, so that the API and every relay worker decide by the same code, each on its own copy of tokens and keys:
    access         the rules            tokens   the shape of credentials
    jwt, jose      what a JWT is good for, and its signature

Kept by a control plane, put together in `credentials`:
    issuing        API tokens           tickets  one-time tickets and the sessions that they give
    signing_keys   our keys, renewed    jwts     our short-lived JWTs
    trusted        keys of the platforms whose JWTs are accepted; kept_keys has the last ones
    callers        who calls the API    login    a command line that a person approved in a browser
    pruning        forgets what has expired
"""
