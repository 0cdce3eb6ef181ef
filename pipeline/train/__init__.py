"""Training stages that consume what synthesis made."""
