"""From a configuration to its parts: model, rows, tokens, a coordinator, an institution."""
