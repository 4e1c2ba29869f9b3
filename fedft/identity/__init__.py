"""Who is who: Ed25519 keys, signatures that name what they sign, the roster of a federation."""
