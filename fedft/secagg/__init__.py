"""Secure aggregation: the sum of the institutions' vectors and nothing else of any of them, as pure state machines.

Form, proof and limits: docs/SPEC.md, "Secure aggregation". No network, no clock, no file: bytes in, bytes out.
"""
