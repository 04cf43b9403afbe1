"""The starter world: a plant-care desk, its small policy, and the simulated people who teach it.

Plain functions over texts, without Django. The oracle may be imported by the simulated annotators and by measurement
alone; nothing that learns may see it.
"""
