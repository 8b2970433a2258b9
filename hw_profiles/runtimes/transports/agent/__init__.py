"""What runs on a board: a program of Python 3.8 and later that needs numpy and one runtime. It is packed into
one file (`hw_profiles.runtimes.transports.launch`) and imports nothing of Trilobit but itself.
"""
