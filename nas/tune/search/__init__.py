"""The search: what is known and believed of policies, and which are measured next."""
