"""Payload bytes and numbers: what encoder and decoder share, and the one decoder there is.

Pure functions over bytes and arrays. The control plane decodes with it what it has encoded, the
device decodes with it what has arrived. The format: docs/reference/payload-format.md.
"""
