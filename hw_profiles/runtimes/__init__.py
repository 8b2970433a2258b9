"""Runtimes, and the devices that are made of one: `runtime` is what an engine offers, `device` what a run
asks of a device, `plugin` how a name such as `ort:threads=4` becomes one.
"""
