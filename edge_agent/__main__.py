"""`python -m edge_agent` is `outrider-agent`."""

from edge_agent.cli import main

main()
