"""What an auditor makes of what rounds leave behind. No deep-learning stack is needed here."""
