"""The main job: samples through the agent into committed, verified rows."""
