"""Local fine-tuning: what happens inside one institution in one round."""
