"""A federation across organisations: keys and certificates, the agent, the proxy, the commands that run it."""
