"""How good policies are: their files run on examples and compared with the original."""
