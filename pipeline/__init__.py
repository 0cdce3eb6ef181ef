"""cofpipe: images in, focus trajectories and visual prompts out; the folders say how."""
