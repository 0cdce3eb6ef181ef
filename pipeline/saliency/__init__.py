"""How much each region of a picture draws the eye, and the order that gives."""
