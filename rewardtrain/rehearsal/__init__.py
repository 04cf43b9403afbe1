"""A dress rehearsal: simulated annotators work through the real pages, the circle turns, the change is measured."""
