"""What `doctor` looks at. A check is a name and a bounded look that gives findings: verdict, cause, fix.

check     running checks beside each other         facts     what the checks start from: settings, what runs, token
machine   binaries, data dir, ports                control   Headscale, the control plane
tailnet   the relay's node and its peers           agents    each agent's path, and what its state says of it
docker    the Docker host, where there is one
"""
