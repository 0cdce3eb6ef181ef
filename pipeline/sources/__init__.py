"""Where pictures come from: one file for each form of SOURCE, a listing, and the decoder."""
